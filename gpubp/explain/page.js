"use strict";
// A unit is pointed at, focused or pinned: its edges light up and its sum is written out. The formulas are those below
// the drawing, copied; the sizes of their terms come from the data that the page carries.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("panel");
  const [sum, bars, about] = ["sum", "bars", "edge"].map((id) => document.getElementById(id));
  const frame = document.querySelector(".drawing"); // it listens: an SVG that does becomes a stop of Tab itself
  const svg = frame.querySelector("svg");
  const hint = sum.innerHTML;
  const L = data.network.sizes.length;
  const of = (list, key) => new Map(list.map((one) => [key(one), one]));
  const units = of(data.units, (u) => `${u.layer}-${u.unit}`);
  const edges = of(data.edges, (e) => `${e.layer}-${e.to}-${e.from}`);
  const sums = of(data.sums, (s) => `${s.kind}-${s.layer}-${s.unit}`);
  const items = of([...svg.querySelectorAll(".unit, .bias, .rest")], (g) => g.dataset.key);
  const lines = [...svg.querySelectorAll(".edge, .number")].map((g) => {
    const [layer, to, from] = g.dataset.key.split("-");
    return { g, key: g.dataset.key, left: `${layer}-${from}`, right: `${+layer + 1}-${to}` };
  });
  let chosen = null; // the key of a unit
  let pinned = false;

  // --- numbers and symbols ---

  function number(value, digits = 6) { // as Python's %g
    if (value === 0) return "0";
    const exponent = +value.toExponential(digits - 1).split("e")[1];
    const text = exponent < -4 || exponent >= digits
      ? value.toExponential(digits - 1).replace(/\.?0*e/, "e").replace(/e([+-])(\d)$/, "e$10$2")
      : value.toFixed(digits - 1 - exponent).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
    return text.replace(/-/g, "−");
  }

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  function symbol(letter, index, layer) {
    return make("span", "", letter, make("sub", "", String(index)), make("sup", "", `(${layer})`));
  }

  function weight(layer, to, from) {
    return symbol("Θ", `${to}${Math.max(+to, +from) > 9 ? "," : ""}${from}`, layer);
  }

  // --- light ---

  function light() {
    const way = panel.dataset.way;
    const lit = new Set();
    for (const line of lines) {
      // an input has edges to the right alone, and so has a bias unit; no edge brings an output its δ
      const layer = chosen ? +chosen.split("-")[0] : 0;
      const bias = chosen !== null && chosen.endsWith("-0");
      const right = layer === 1 || bias || way === "back";
      const on = chosen !== null && (right ? line.left : line.right) === chosen;
      line.g.classList.toggle("lit", on);
      if (on) lit.add(line.left).add(line.right);
    }
    for (const [key, item] of items) {
      item.classList.toggle("lit", key === chosen || lit.has(key));
      item.classList.toggle("chosen", key === chosen);
      item.setAttribute("aria-pressed", String(pinned && key === chosen));
    }
    svg.classList.toggle("busy", chosen !== null);
  }

  function heat(key) {
    const [layer, to, from] = key ? key.split("-") : [];
    for (const line of lines) {
      line.g.classList.toggle("hot", line.key === key);
      if (line.key === key) line.g.classList.add("lit");
    }
    for (const [unit, item] of items) {
      item.classList.toggle("hot", Boolean(key) && (unit === `${layer}-${from}` || unit === `${+layer + 1}-${to}`));
    }
    for (const term of panel.querySelectorAll("[data-edge]")) {
      term.classList.toggle("hot", term.dataset.edge === key);
    }
    if (key) tell(key);
  }

  // --- words ---

  function tell(key) {
    const [layer, to, from] = key.split("-");
    const edge = edges.get(key);
    about.replaceChildren();
    const say = (...parts) => about.append(make("p", "", ...parts));
    if (!edge) {
      const forward = from === "rest";
      const total = forward ? sums.get(`z-${+layer + 1}-${to}`) : sums.get(`s-${layer}-${from}`);
      if (!total) return;
      say(make("b", "", `${total.rest.terms.toLocaleString("en")} edges that are not drawn`));
      say(`Together they bring ${number(total.rest.total)} to `, symbol(forward ? "z" : "s", total.unit, total.layer), ".");
      return;
    }
    const right = +layer + 1;
    const sign = data.sign === "loss" ? "C" : "cost(t)";
    say(make("b", "", weight(layer, to, from), ` = ${number(edge.Theta)}`));
    const a = from === "0" ? 1 : units.get(`${layer}-${from}`).a;
    const delta = units.get(`${right}-${to}`).delta;
    say("forward: Θ·a = ", `${number(edge.Theta)} · ${number(a)} = ${number(edge.forward)}, a part of `,
      symbol("z", to, right));
    if (edge.backward !== undefined) {
      say("backward: Θ·δ = ", `${number(edge.Theta)} · ${number(delta)} = ${number(edge.backward)}, a part of `,
        symbol("s", from, layer));
    }
    say(`slope: ∂${sign}/∂Θ = δ·a = ${number(delta)} · ${number(a)} = ${number(edge.gradient)}`);
    const down = data.sign === "loss" ? -edge.gradient : edge.gradient;
    say(edge.gradient === 0
      ? "This example would not change it."
      : `For this example alone, gradient descent makes Θ ${down > 0 ? "larger" : "smaller"}.`);
  }

  function row(label, value, most, key) {
    const bar = make("span", "bar", make("i", value < 0 ? "minus" : "plus"));
    bar.firstChild.style.width = `${(50 * Math.abs(value)) / (most || 1)}%`;
    const found = make(key ? "button" : "div", key ? "term" : "term sum", label, bar, make("span", "value", number(value)));
    if (key) {
      found.type = "button";
      found.dataset.edge = key;
    }
    bars.append(found);
  }

  function draw(key) {
    const [layer, unit] = key.split("-").map(Number);
    bars.replaceChildren();
    const kind = panel.dataset.way === "back" ? "s" : "z";
    const total = sums.get(`${kind}-${layer}-${unit}`);
    if (total) {
      const rest = total.rest;
      const most = Math.max(...[...total.terms.map((t) => t.product), rest.total, total.total].map(Math.abs));
      for (const t of total.terms) {
        const other = kind === "s" ? symbol("δ", t.to, t.layer + 1) : t.from ? symbol("a", t.from, t.layer) : "1";
        row(make("span", "", weight(t.layer, t.to, t.from), "·", other), t.product, most, `${t.layer}-${t.to}-${t.from}`);
      }
      if (rest.terms) {
        const edge = kind === "z" ? `${layer - 1}-${unit}-rest` : `${layer}-rest-${unit}`;
        row(make("span", "", `${rest.terms.toLocaleString("en")} more`), rest.total, most, edge);
      }
      row(make("span", "", symbol(kind, unit, layer), kind === "s" ? ", the sum" : ""), total.total, most);
      return;
    }
    if (layer === L) return;
    const out = lines.filter((line) => line.left === key && edges.has(line.key) && line.g.classList.contains("edge"));
    const most = Math.max(...out.map((line) => Math.abs(edges.get(line.key).forward)));
    for (const line of out) {
      const e = edges.get(line.key);
      const label = make("span", "", weight(e.layer, e.to, e.from), "·", e.from ? symbol("a", e.from, e.layer) : "1");
      row(label, e.forward, most, line.key);
    }
  }

  function show(key) {
    chosen = key;
    heat(null); // a term that goes away says no farewell
    about.replaceChildren();
    bars.replaceChildren();
    if (key === null) {
      sum.innerHTML = hint; // the page's own words
    } else {
      const article = document.getElementById(`unit-${key}`);
      const item = items.get(key);
      if (article) {
        sum.replaceChildren(...[...article.cloneNode(true).childNodes]);
      } else {
        sum.replaceChildren(make("h3", "", item.getAttribute("aria-label")));
        if (!item.classList.contains("rest")) sum.append(make("p", "note", "What it brings to the units to its right:"));
      }
      const head = sum.querySelector("h3");
      if (pinned && head) head.append(make("span", "pinned", " (pinned)"));
      if (!item.classList.contains("rest")) draw(key);
    }
    light();
  }

  // --- what a person does ---

  const item_at = (target) => target.closest(".unit, .bias, .rest");

  function pin(key) {
    pinned = !(pinned && chosen === key);
    show(key);
  }

  frame.addEventListener("pointerover", (event) => {
    const item = item_at(event.target);
    const edge = event.target.closest(".edge");
    if (item && !pinned && event.pointerType !== "touch") show(item.dataset.key);
    if (edge) heat(edge.dataset.key);
  });
  frame.addEventListener("pointerout", (event) => {
    if (event.target.closest(".edge")) {
      heat(null);
      light();
    }
  });
  frame.addEventListener("click", (event) => {
    const item = item_at(event.target);
    const edge = event.target.closest(".edge");
    if (item) pin(item.dataset.key);
    else if (!edge) {
      pinned = false;
      show(null);
    }
  });
  frame.addEventListener("focusin", (event) => {
    const item = item_at(event.target);
    // a click focuses, too, and then pins: what was pinned before must be known to it
    if (item && !pinned && item.matches(":focus-visible")) show(item.dataset.key);
  });

  function neighbour(key, arrow) {
    const layer = +key.split("-")[0];
    const middle = (item) => {
      const box = item.getBoundingClientRect();
      return box.top + box.height / 2;
    };
    const column = (l) => [...items.keys()].filter((one) => +one.split("-")[0] === l);
    if (arrow === "ArrowUp" || arrow === "ArrowDown") {
      const own = column(layer);
      return own[own.indexOf(key) + (arrow === "ArrowUp" ? -1 : 1)];
    }
    const y = middle(items.get(key));
    const away = (one) => Math.abs(middle(items.get(one)) - y);
    return column(layer + (arrow === "ArrowLeft" ? -1 : 1)).sort((p, q) => away(p) - away(q))[0];
  }

  frame.addEventListener("keydown", (event) => {
    const item = item_at(event.target);
    if (!item || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key.startsWith("Arrow")) {
      const next = neighbour(item.dataset.key, event.key);
      if (next) {
        pinned = false;
        items.get(next).focus();
      }
    } else if (event.key === "Enter" || event.key === " ") pin(item.dataset.key);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    pinned = false;
    show(null);
  });

  const touched = (event) => {
    const term = event.target.closest("[data-edge]");
    if (term) heat(term.dataset.edge);
  };
  panel.addEventListener("pointerover", touched);
  panel.addEventListener("focusin", touched);
  panel.addEventListener("click", touched);
  const left = (event) => {
    if (event.target.closest("[data-edge]")) {
      heat(null);
      light();
    }
  };
  panel.addEventListener("pointerout", left);
  panel.addEventListener("focusout", left);
  panel.addEventListener("change", (event) => {
    panel.dataset.way = event.target.value;
    show(chosen);
  });

  for (const edge of svg.querySelectorAll(".edge")) { // a thin line is hard to meet: it gets a wide one under it
    const hit = edge.firstElementChild.cloneNode();
    hit.setAttribute("class", "hit");
    edge.prepend(hit);
  }
  document.documentElement.classList.add("js");
})();
