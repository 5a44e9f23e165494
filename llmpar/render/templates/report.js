// The page's script: what a point says, tables sorted, objectives typed in, a filter. Without it the page holds the same figures.
(() => {
  "use strict";
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const tip = document.getElementById("tip");
  const points = all(".p[data-row]");
  const ofRow = new Map();
  for (const each of all("[data-row]")) ofRow.set(each.dataset.row, [...(ofRow.get(each.dataset.row) || []), each]);

  let shown = null;
  const show = (point) => {
    if (point === shown) return;
    if (shown) for (const each of ofRow.get(shown.dataset.row)) each.classList.remove("on");
    shown = point;
    tip.hidden = !point;
    if (!point) return;
    for (const each of ofRow.get(point.dataset.row)) each.classList.add("on");
    const state = point.dataset.state ? ` – ${point.dataset.state}` : "";
    tip.textContent = point.querySelector("title").textContent + state;
    const box = point.getBoundingClientRect(), wide = tip.offsetWidth, high = tip.offsetHeight;
    tip.style.left = `${Math.max(4, Math.min(box.x + box.width / 2 - wide / 2, document.documentElement.clientWidth - wide - 4))}px`;
    tip.style.top = `${box.y > high + 8 ? box.y - high - 6 : box.bottom + 6}px`;
  };
  for (const drawing of all("svg").filter((each) => each.querySelector(".p[data-row]"))) {
    const own = all(".p[data-row]", drawing);
    for (const point of own) { // the script's own words take the place of the browser's
      point.setAttribute("aria-label", point.querySelector("title").textContent);
    }
    const middle = (point) => { const box = point.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };
    drawing.addEventListener("pointermove", (event) => {
      let near = null, least = 22;
      for (const point of own) {
        const [x, y] = middle(point), far = Math.hypot(x - event.clientX, y - event.clientY);
        if (far < least) [near, least] = [point, far];
      }
      show(near);
    });
    drawing.addEventListener("pointerleave", () => show(null));
    drawing.tabIndex = 0;
    let place = -1;
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") show(null);
      if (!step) return;
      event.preventDefault();
      const ordered = [...own].sort((a, b) => middle(a)[0] - middle(b)[0]);
      place = (place + step + ordered.length) % ordered.length;
      show(ordered[place]);
    });
    drawing.addEventListener("blur", () => show(null));
  }
  addEventListener("scroll", () => show(null), { passive: true });

  // By a cell's data-sort, else by its text; cells without a value stay last. Ascending first, then descending.
  const keyOf = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const before = (a, b) => a - b || String(a).localeCompare(b, undefined, { numeric: true });
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const sort = () => {
        const way = head.ariaSort === "ascending" ? -1 : 1;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.ariaSort = way > 0 ? "ascending" : "descending";
        const keyed = [...table.tBodies[0].rows].map((row) => [keyOf(row, column), row]);
        keyed.sort(([a], [b]) => (a === "") - (b === "") || way * before(a, b));
        table.tBodies[0].append(...keyed.map(([, row]) => row));
      };
      head.tabIndex = 0;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        sort();
      });
    });
  }

  const cells = document.getElementById("cells");
  const rows = () => all("tbody tr", cells);
  const given = JSON.parse(document.getElementById("limits").textContent);
  const SIGNS = { meets: "✓", misses: "✗", "cannot tell": "?" };

  // Objectives as in llmpar-pick: {"ttft-p95": seconds}; null where a part cannot be read.
  const parse = (text) => {
    const found = {};
    for (const part of text.replace(/\s*(<=|<|≤)\s*/g, "<").split(/[\s,]+/).filter(Boolean)) {
      const match = /^([a-z0-9_-]+)<(\d*\.?\d+)(us|ms|s|m)?$/i.exec(part);
      const name = match && match[1].toLowerCase().replaceAll("_", "-");
      if (!match) return { error: `“${part}” is not an objective such as ttft-p95<500ms` };
      if (!given.limits[name]) return { error: `${name} is in none of the cells; there are ${Object.keys(given.limits).join(", ")}` };
      found[name] = Number(match[2]) * { us: 1e-6, ms: 1e-3, s: 1, m: 60 }[(match[3] || "s").toLowerCase()];
    }
    return { objectives: found };
  };
  const judge = (place, objectives) => {
    const states = Object.entries(objectives).map(([name, most]) => {
      const [low, high] = given.limits[name][place];
      return low === null || most < low ? "misses" : high !== null && most >= high ? "meets" : "cannot tell";
    });
    states.push(given.states[place] || "meets");
    return ["misses", "cannot tell", "meets"].find((each) => states.includes(each));
  };
  const line = (drawing, objectives) => {
    const { metric, turned, log, low, high, start, end } = drawing.dataset;
    const mark = drawing.querySelector(".slo"), most = objectives[metric];
    const value = most === undefined ? NaN : Number(turned) ? 1 / most : most;
    const [from, to] = [Number(low), Number(high)];
    const share = Number(log) ? Math.log(value / from) / Math.log(to / from) : (value - from) / (to - from);
    mark.toggleAttribute("hidden", !(share >= -0.01 && share <= 1.01));
    if (!(share >= -0.01 && share <= 1.01)) return;
    const place = Number(start) + share * (Number(end) - Number(start)), text = mark.querySelector("text");
    mark.setAttribute("transform", `translate(${place.toFixed(1)} 0)`);
    text.setAttribute("class", place > 300 ? "n e" : "n"); // the word stays in the picture
    text.setAttribute("x", place > 300 ? -4 : 4);
  };
  const field = document.getElementById("slo"), said = document.getElementById("slo-said");
  const apply = () => {
    const { objectives, error } = parse(field.value);
    field.setAttribute("aria-invalid", String(Boolean(error)));
    if (error) { said.textContent = error; return; }
    const asked = Object.keys(objectives).length > 0;
    const counts = [0, 1].map(() => ({ meets: 0, misses: 0, "cannot tell": 0 })); // measured, predicted
    document.body.classList.toggle("asked", asked);
    given.rows.forEach((key, place) => {
      const state = asked ? judge(place, objectives) : "";
      if (asked) counts[Number(given.predicted.includes(place))][state] += 1;
      for (const each of ofRow.get(key) || []) {
        if (each.matches(".p")) each.dataset.state = state;
        if (each.closest("svg:not([data-metric])")) continue; // charts of one sweep keep the colours of their series
        each.classList.remove("meets", "misses", "unknown");
        if (asked) each.classList.add(state === "cannot tell" ? "unknown" : state);
        const cell = each.querySelector("td.state");
        if (cell) cell.textContent = asked ? `${SIGNS[state]} ${state}${given.predicted.includes(place) ? " (predicted)" : ""}` : "";
      }
    });
    for (const drawing of all("svg[data-metric]")) line(drawing, objectives);
    const words = counts.map((count) => `meet ${count.meets} · miss ${count.misses} · cannot tell ${count["cannot tell"]}`);
    const [measured, predicted] = [given.predicted.length < given.rows.length, given.predicted.length > 0];
    said.textContent = asked ? [measured && words[0], predicted && `predicted: ${words[1]}`].filter(Boolean).join("; ") : "";
    sift();
  };
  const filter = document.getElementById("filter"), left = document.getElementById("filter-said");
  const sift = () => {
    const terms = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = 0;
    for (const row of rows()) {
      const text = row.textContent.toLowerCase(), fits = terms.every((term) => text.includes(term));
      row.hidden = !fits;
      kept += fits;
      for (const each of ofRow.get(row.dataset.row)) if (each.closest("svg[data-metric]")) each.classList.toggle("off", !fits);
    }
    left.textContent = terms.length ? `${kept} of ${rows().length} cells` : "";
  };
  for (const form of all("form")) {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  field.addEventListener("input", apply);
  filter.addEventListener("input", sift);
  apply();
  cells.addEventListener("pointerover", (event) => {
    const row = event.target.closest("tr[data-row]");
    for (const point of points) point.classList.toggle("on", Boolean(row) && point.dataset.row === row.dataset.row);
  });
  cells.addEventListener("pointerleave", () => points.forEach((point) => point.classList.remove("on")));

  // Paper shows what is folded.
  let folded = [];
  addEventListener("beforeprint", () => { folded = all("details:not([open])"); folded.forEach((each) => { each.open = true; }); });
  addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
})();
