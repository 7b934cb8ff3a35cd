// Makes the ranked table sortable; without it the table reads in the order of its ranking.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    if (head.dataset.sort === undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== (head.dataset.sort === "text" ? "ascending" : "descending");
      const sign = (head.dataset.sort === "text") === up ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const compare = (a, b) =>
        head.dataset.sort === "text" ? key(a).localeCompare(key(b)) : Number(key(a)) - Number(key(b));
      body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    });
  });
}
