"""How quickly the studio answers a moving hand, alone and among fifty others, on loopback.

    python benchmarks/studio.py [--clients 50] [--moves 100] [--seconds 60] [--no-browser]

Starts `higan studio` as a process of its own, on the embedded generator, and prints two tables. Bounded in moves and in
time; the machine's load is printed with them, since everything here is measured in wall-clock time.

1. A scripted drag of a slider in a real browser: from the event of the slider to the new picture on the canvas, the
   picture that is drawn and shown at once; beside it what the generator alone takes for such a picture in this process,
   and the first view after the server is up.
2. Clients that drag without a browser, each with one request under way as the page has: latency, pictures per second,
   how evenly clients were served, refusals, memory of the server. Then one dragging hand beside one client that keeps
   32 requests under way without taking turns of its own.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil
import torch

from higan import load_generator
from higan.memory import keep_memory
from higan.population import render, sample
from higan.studio import shipped_study
from higan.studio.encoding import encode
from higan.studio.facts import about
from higan.workbench import open_workbench


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def quantile(values, q):
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


def milliseconds(seconds):
    return f"{seconds * 1000:.0f} ms"


@contextmanager
def serving(*words):
    """What a line of the program serves, by itself: its address, its process, and the seconds until it said so."""
    start = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "higan.cli", *words, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in server.stdout:
            if found := re.search(r"http://[^\s]+", line):
                break
        else:
            raise SystemExit("the server did not start")
        yield found[0], psutil.Process(server.pid), time.perf_counter() - start
    finally:
        server.terminate()
        server.wait(10)


# --- alone ------------------------------------------------------------------------------------------------------------


def bare(moves):
    """Seconds that generator and encoder take for one picture, one thread, without any server."""
    generator = load_generator("rooms-128")
    torch.set_num_threads(1)
    codes = sample(generator, range(moves))
    for k in range(5):
        encode(render(generator, codes[k : k + 1])[0])
    taken = []
    for k in range(moves):
        start = time.perf_counter()
        encode(render(generator, codes[k : k + 1])[0])
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


DRAG = """async ([concept, moves]) => {
  const slider = document.querySelector(`[data-concept=${concept}]`);
  performance.clearMeasures();
  for (let k = 1; k <= moves; k++) {
    slider.value = slider.max * Math.sin(k / 15);
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    await new Promise((r) => setTimeout(r, 16));
  }
  slider.dispatchEvent(new Event('change', {bubbles: true}));
  await new Promise((r) => setTimeout(r, 1500));
  const last = JSON.parse(document.querySelector('#frame').dataset.shows).edits[0].strength;
  return {taken: performance.getEntriesByName('higan: picture').map((e) => e.duration), last, wanted: +slider.value};
}"""


def in_a_browser(address, moves):
    """Milliseconds from slider to picture, per picture shown, and seconds to the first view."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        views = []
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            start = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("#frame[data-drawn]", state="attached")
            views.append(time.perf_counter() - start)
        page.wait_for_timeout(3000)
        concept = page.eval_on_selector("input[type=range]", "one => one.dataset.concept")
        found = page.evaluate(DRAG, [concept, moves])
        browser.close()
    if abs(found["last"] - found["wanted"]) > 1e-6:
        raise SystemExit(f"the last picture is of {found['last']}, not of {found['wanted']}")
    return [taken / 1000 for taken in found["taken"]], views


# --- among others -----------------------------------------------------------------------------------------------------


class Client:
    """One connection that asks for pictures, as lean as can be, so that the load costs little beside what it loads."""

    def __init__(self, address, name, concept):
        where = urlsplit(address)
        self.host, self.port = where.hostname, where.port
        self.name, self.concept = name, concept
        self.taken, self.refused = [], 0

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)

    async def move(self, k, *, drag=True):
        strength = 0.01 + self.concept["limit"] * ((k * 37) % 100) / 100
        edit = {"concept": self.concept["name"], "strength": strength, "layers": self.concept["layers"]}
        body = json.dumps({"look": {"seed": hash(self.name) % 1000, "edits": [edit]}, "drag": drag}).encode()
        head = (
            f"POST /api/picture HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nX-Client: {self.name}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        start = time.perf_counter()
        self.writer.write(head.encode() + body)
        status = int((await self.reader.readline()).split()[1])
        length = 0
        while (line := await self.reader.readline()).strip():
            key, _, value = line.decode().partition(":")
            length = int(value) if key.lower() == "content-length" else length
        await self.reader.readexactly(length)
        if status == 200:
            self.taken.append(time.perf_counter() - start)
        elif status in (429, 503):
            self.refused += 1
            await asyncio.sleep(0.05)
        elif status != 204:
            raise SystemExit(f"the server answered {status}")

    async def drag(self, moves, until, *, drag=True):
        await self.open()
        for k in range(moves):
            if time.perf_counter() > until:
                break
            await self.move(k, drag=drag)
        self.writer.close()


async def crowd(address, clients, moves, seconds, concept):
    hands = [Client(address, f"hand-{k}", concept) for k in range(clients)]
    start = time.perf_counter()
    await asyncio.gather(*(hand.drag(moves, start + seconds) for hand in hands))
    return hands, time.perf_counter() - start


async def beside_a_flood(address, moves, seconds, concept):
    """One hand that drags while one client keeps 32 requests under way."""
    until = time.perf_counter() + seconds
    hand = Client(address, "hand", concept)
    flood = [Client(address, "flood", concept) for _ in range(32)]
    floods = [asyncio.create_task(one.drag(10**9, until, drag=False)) for one in flood]
    await asyncio.sleep(0.5)
    await hand.drag(moves, until)
    for task in floods:
        task.cancel()
    await asyncio.gather(*floods, return_exceptions=True)
    return hand, sum(len(one.taken) for one in flood)


def row(name, hands, wall):
    taken = [t for hand in hands for t in hand.taken]
    served = [len(hand.taken) for hand in hands]
    return [
        name,
        milliseconds(statistics.median(taken)),
        milliseconds(quantile(taken, 0.95)),
        milliseconds(max(taken)),
        f"{len(taken) / wall:.0f}",
        f"{min(served)} – {max(served)}",
        str(sum(hand.refused for hand in hands)),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--moves", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    keep_memory()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    concepts = about(open_workbench(shipped_study(), load_generator("rooms-128")))["concepts"]
    # An edit of the first layer, as the browser drags one: nothing of the picture can be kept from move to move.
    concept = next(concept for concept in concepts if 0 in concept["layers"])
    with serving("studio") as (address, server, up):
        alone = bare(options.moves)
        if not options.no_browser:
            taken, views = in_a_browser(address, options.moves)
            median = statistics.median(taken)
            table(
                ["", "median", "95 %", "largest", "beside generator and encoder alone"],
                [
                    ["slider → picture", milliseconds(median), milliseconds(quantile(taken, 0.95)),
                     milliseconds(max(taken)), f"{median / alone:.1f} × {milliseconds(alone)}"],
                    ["first view", milliseconds(statistics.median(views)), "", milliseconds(max(views)), ""],
                ],
            )  # fmt: skip
            print(f"{len(taken)} pictures of {options.moves} moves were shown, the last of them last.")
        print(f"The server was up after {up:.1f} s.", flush=True)
        memory, used = server.memory_info().rss, server.cpu_times()
        rows, pictures = [], 0
        for count in sorted({1, options.clients}):
            hands, wall = asyncio.run(crowd(address, count, options.moves, options.seconds, concept))
            rows.append(row(f"{count} dragging", hands, wall))
            pictures += sum(len(hand.taken) for hand in hands)
        hand, others = asyncio.run(beside_a_flood(address, options.moves, options.seconds, concept))
        rows.append(row("1 dragging beside a flood of 32", [hand], sum(hand.taken)))
        pictures += others + len(hand.taken)
        now = server.cpu_times()
        table(["clients", "median", "95 %", "largest", "pictures per second", "pictures per client", "refused"], rows)
        cpu = (now.user + now.system - used.user - used.system) / pictures
        grown = (server.memory_info().rss - memory) / 2**20
        print(
            f"The server used {cpu * 1000:.1f} ms of processor time per picture; its memory grew by {grown:.0f} MiB to "
            f"{server.memory_info().rss / 2**20:.0f} MiB. The flood got {others} pictures meanwhile."
        )
    print(f"load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
