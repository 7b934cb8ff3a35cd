"""The photographs in the documentation, taken again: after another default generator, or another page.

    python benchmarks/pictures.py RUN [--out docs/images] [--only sheet report studio user-study]

RUN is a finished run of the embedded generator, such as `higan demo` makes. Takes pictures of what a user sees, in a
chromium that is installed: a sheet of samples, the head of the report, the studio on a desktop and on a phone, a
rater's page.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from higan import load_generator
from higan.population import render, sample
from higan.rooms.dataset import contact_sheet
from studio import serving

GENERATOR = "rooms-128"
SEED = "5"
"""Of the user study: of its first pair people would say that something changed."""
LOOK = "#seed=7&edit=view_yaw~1.9~0-1&edit=indoor_lighting~1~0-11"


def sheet(run, out, browser):
    images = render(generator := load_generator(GENERATOR), sample(generator, range(16)))
    Image.fromarray(contact_sheet(images, 4).permute(1, 2, 0).numpy()).save(out / "rooms-128.png")


def report(run, out, browser):
    page = browser.new_page(viewport={"width": 1180, "height": 900}, color_scheme="light")
    page.goto((run / "report.html").resolve().as_uri())
    page.add_style_tag(content=".facts, nav, #layers > h2, #layers > p, .eyebrow { display: none !important }")
    page.wait_for_timeout(500)
    end = page.evaluate("() => document.querySelector('#layers .charts').getBoundingClientRect().bottom")
    save(page, out / "report.jpg", full_page=True, clip={"x": 0, "y": 40, "width": 1180, "height": round(end) - 16})
    page.close()


def studio(run, out, browser):
    with serving("studio", str(run)) as (address, *_):
        sizes = {"desktop": (1280, 860, 1, "light"), "phone": (300, 592, 2, "dark")}
        for name, (width, height, scale, scheme) in sizes.items():
            context = browser.new_context(
                viewport={"width": width, "height": height}, device_scale_factor=scale, color_scheme=scheme
            )
            page = context.new_page()
            page.goto(address + LOOK)
            page.wait_for_selector("#frame[data-drawn]", state="attached")
            page.wait_for_timeout(20_000)  # responses of two sliders are measured
            if name == "phone":
                page.evaluate("() => document.querySelector('input[type=range]').scrollIntoView({block: 'center'})")
                page.wait_for_timeout(500)
            save(page, out / f"studio-{name}.jpg")
            context.close()


def user_study(run, out, browser):
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        subprocess.run(
            [sys.executable, "-m", "higan.cli", "user-study", "build", str(run), "--out", str(study), "--seed", SEED],
            check=True,
        )
        with serving("user-study", "serve", str(study)) as (address, *_):
            page = browser.new_page(viewport={"width": 920, "height": 610}, color_scheme="light")
            page.goto(address)
            page.click("#start button")
            page.wait_for_selector("#rating:not([hidden])")
            page.wait_for_timeout(1000)
            page.screenshot(path=out / "user-study.png")
            page.close()


def save(page, path, **options):
    """As JPEG, a third of the size of the PNG."""
    Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB").save(path, quality=88)


PICTURES = {"sheet": sheet, "report": report, "studio": studio, "user-study": user_study}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES))
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name in options.only:
            PICTURES[name](options.run, options.out, browser)
            print(f"{name} in {options.out}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
