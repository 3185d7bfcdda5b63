// The model card, whose Markdown has headings, paragraphs, tables, bold words and code, as elements; nothing in it is markup.
import { element } from "./scene.js";

export function cardElements(markdown) {
  return markdown.trim().split(/\n\s*\n/).map((block) => {
    const lines = block.split("\n");
    const heading = block.match(/^(#+) (.*)$/);
    if (heading) return element(heading[1].length === 1 ? "h3" : "h4", heading[2]);
    if (lines.length > 2 && lines.every((line) => line.startsWith("|"))) return table(lines.map(cells));
    return worded("p", lines.join(" "));
  });
}

const cells = (line) => line.split("|").slice(1, -1).map((cell) => cell.trim());

function table([head, , ...rows]) {
  const row = (name, texts) => {
    const made = document.createElement("tr");
    made.append(...texts.map((text) => worded(name, text)));
    return made;
  };
  const made = document.createElement("table");
  made.append(row("th", head), ...rows.map((texts) => row("td", texts)));
  return made;
}

function worded(name, text) {
  const made = document.createElement(name);
  for (const piece of text.split(/(\*\*[^*]+\*\*|`[^`]+`)/)) {
    if (piece.startsWith("**")) made.append(element("strong", piece.slice(2, -2)));
    else if (piece.startsWith("`")) made.append(element("code", piece.slice(1, -1)));
    else made.append(piece);
  }
  return made;
}
