// Tables sort by a click on a column's head: up, down, and back to their own order; gaps stay last.
const cellValue = (row, column) => {
  const cell = row.cells[column];
  if (cell.dataset.v === undefined) return cell.textContent.trim();
  return cell.dataset.v === "" ? null : Number(cell.dataset.v);
};
const inOrder = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const select = document.createElement("select");
  function sort(column, order) {
    const sorted = [...rows];
    if (order) {
      sorted.sort((one, other) => {
        const [a, b] = [cellValue(one, column), cellValue(other, column)];
        if (a === null || b === null) return (a === null) - (b === null);
        return order === "ascending" ? inOrder(a, b) : inOrder(b, a);
      });
    }
    body.append(...sorted);
    table.classList.toggle("sorted", Boolean(order));
    heads.forEach((head, index) => (order && index === column ? head.setAttribute("aria-sort", order) : head.removeAttribute("aria-sort")));
  }
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "sort by this column";
    head.append(button);
    const numeric = rows.some((row) => row.cells[column].dataset.v);
    const turns = numeric ? ["descending", "ascending", ""] : ["ascending", "descending", ""];
    button.addEventListener("click", () => {
      const now = turns.indexOf(head.getAttribute("aria-sort") ?? "");
      sort(column, turns[(now + 1) % turns.length]);
    });
    select.append(new Option(`sort by ${head.textContent.trim() || "name"}`, String(column)));
  });
  // A narrow screen shows rows as cards and no heads: a menu sorts there.
  if (table.classList.contains("cards")) {
    select.prepend(new Option("in the sweep's order", ""));
    select.selectedIndex = 0;
    select.className = "sorter";
    select.setAttribute("aria-label", "order of the table");
    select.addEventListener("change", () => {
      if (select.value === "") return sort(0, "");
      const column = Number(select.value);
      sort(column, rows.some((row) => row.cells[column].dataset.v) ? "descending" : "ascending");
    });
    table.before(select);
  }
}
// What a link points at may lie in a closed part.
function reveal() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView({ block: "center" });
}
window.addEventListener("hashchange", reveal);
window.addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
reveal();
