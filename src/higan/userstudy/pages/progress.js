// Who has got how far. The organiser's key stands behind # in the address.
const key = new URLSearchParams(location.hash.slice(1)).get("key") ?? "";
const summary = document.getElementById("summary");
const table = document.querySelector("table");

function cell(content, name) {
  const td = document.createElement("td");
  td.append(content);
  if (name) td.className = name;
  return td;
}

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

function row(rater, total) {
  const tr = document.createElement("tr");
  const bar = document.createElement("progress");
  bar.max = total;
  bar.value = rater.answered;
  bar.setAttribute("aria-label", "Answered");
  tr.append(cell(rater.number), cell(rater.nickname), cell(bar), cell(`${rater.answered} of ${total}`, "number"));
  return tr;
}

async function refresh() {
  try {
    const response = await fetch("/api/progress", { headers: { "x-organiser": key } });
    const data = await response.json();
    if (!response.ok) throw new Error(data.error);
    const finished = data.raters.filter((rater) => rater.answered >= data.total).length;
    const answers = data.raters.reduce((sum, rater) => sum + rater.answered, 0);
    summary.textContent = `${count(data.raters.length, "rater")}, ${finished} of them finished; ${count(answers, "answer")}.`;
    table.tBodies[0].replaceChildren(...data.raters.map((rater) => row(rater, data.total)));
    table.hidden = data.raters.length === 0;
  } catch (error) {
    summary.textContent = error.message;
  }
  setTimeout(refresh, 5000);
}

refresh();
