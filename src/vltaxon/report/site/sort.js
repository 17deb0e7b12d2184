"use strict";
for (const table of document.querySelectorAll("table.scores")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.slice(1).forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => Number(row.cells[index + 1].dataset.value);
      const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b)));
      table.tBodies[0].append(...rows);
    });
  });
}
