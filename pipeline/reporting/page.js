"use strict";

// Theme: the system's, or the one asked for.
const themeButton = document.getElementById("theme");
const themes = ["auto", "light", "dark"];
let theme = 0;
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  theme = (theme + 1) % themes.length;
  themeButton.textContent = "theme: " + themes[theme];
  if (theme === 0) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = themes[theme];
});

// On paper nothing can be unfolded.
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = Array.from(document.querySelectorAll("details:not([open])"));
  unfolded.forEach((details) => (details.open = true));
});
addEventListener("afterprint", () => unfolded.forEach((details) => (details.open = false)));

// The case table: the figures of one structure or their means, sorted and filtered.
const cases = document.getElementById("cases");
if (cases) {
  const body = cases.tBodies[0];
  const rows = Array.from(body.rows);
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const filter = document.getElementById("filter");
  const below = document.getElementById("below");
  const structure = document.getElementById("structure");
  const count = document.getElementById("count");
  const firstFigure = 2;
  const means = new Map(rows.map((row) => [row, Array.from(row.cells, (cell) => cell.textContent)]));
  const heads = Array.from(cases.tHead.rows[0].cells);
  const diceColumn = heads.findIndex((head) => head.textContent === "Dice");

  const value = (text) => {
    const number = Number(text.replace("\u2212", "-"));
    return Number.isNaN(number) ? null : number;
  };

  const show = () => {
    const chosen = Number(structure.value);
    cases.classList.toggle("means", chosen < 0);
    for (const row of rows) {
      const own = figures[row.dataset.case];
      own.forEach((texts, i) => {
        row.cells[firstFigure + i].textContent = chosen < 0 ? means.get(row)[firstFigure + i] : texts[chosen];
      });
    }
    select();
    const sorted = heads.findIndex((head) => head.getAttribute("aria-sort") !== "none");
    if (sorted >= firstFigure) sortBy(sorted, heads[sorted].getAttribute("aria-sort") === "ascending");
  };

  const select = () => {
    const wanted = filter.value.trim().toLowerCase();
    const limit = below.value === "" ? Infinity : Number(below.value);
    let shown = 0;
    for (const row of rows) {
      const dice = value(row.cells[diceColumn].textContent);
      const fits = row.cells[0].textContent.toLowerCase().includes(wanted) && (limit === Infinity || (dice !== null && dice < limit));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === rows.length ? rows.length + " cases" : shown + " of " + rows.length + " cases";
  };

  const sortBy = (column, ascending) => {
    const keys = new Map(rows.map((row) => [row, row.cells[column].textContent]));
    // Ids such as 12 among case_3 and case_20 are words, with numbers in them; a dash is a number that there is not.
    const words = rows.some((row) => keys.get(row) !== "\u2013" && value(keys.get(row)) === null);
    const order = (a, b) => {
      const [left, right] = [keys.get(a), keys.get(b)];
      if (words) return left.localeCompare(right, "en", { numeric: true }) * (ascending ? 1 : -1);
      const [x, y] = [value(left), value(right)];
      if (x === null || y === null) return (x === null) - (y === null);
      return (x - y) * (ascending ? 1 : -1);
    };
    body.append(...rows.sort(order));
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : ascending ? "ascending" : "descending"));
  };

  heads.forEach((head, column) =>
    head.firstElementChild.addEventListener("click", () => sortBy(column, head.getAttribute("aria-sort") !== "ascending")),
  );
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("input", select);
  below.addEventListener("input", select);
  structure.addEventListener("change", show);
  document.getElementById("controls").hidden = false;
  heads[diceColumn].setAttribute("aria-sort", "ascending");
}
