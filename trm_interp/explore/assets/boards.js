/* Boards: drawn in the browser, from data that it has of the runs.

Why here: a move of the slider costs no request, so boards follow within a frame while the machine
computes a fork. As Dash components, 900 cells a run of an ARC board would be rendered anew at every
move and lose the keyboard's focus; Dash has no keys, no play, and no event within a board. All else
is Python: these are clientside callbacks of browser.py, and none knows a task or an architecture. */
window.explorer = (function () {
  const GIVEN = 1, WRONG = 2, CONFLICT = 4, CHANGED = 8; // as in runs.py
  const built = { data: null, runs: [] };
  const view = { moment: 0, active: 0, cell: null, heat: null };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const decoded = (of) => Object.fromEntries(Object.entries(of).map(([k, v]) => [k, bytes(v)]));
  const last = () => (built.data ? built.data.moments.length - 1 : 0);
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const none = () => window.dash_clientside.no_update;
  const plot = (id) => document.querySelector(`#${id} .js-plotly-plot`);
  const callbacks = (more) => {
    const all = (window.dash_clientside = window.dash_clientside || {});
    all.explore = Object.assign(all.explore || {}, more);
  };

  function element(tag, className, parent) {
    const made = document.createElement(tag);
    made.className = className;
    parent.append(made);
    return made;
  }

  function buildCell(grid, number, i, data) {
    const cell = element("div", "cell", grid), columns = data.grid[1];
    const row = Math.floor(i / columns), column = i % columns;
    cell.setAttribute("role", "gridcell");
    cell.tabIndex = i ? -1 : 0;
    Object.assign(cell.dataset, { run: number, cell: i });
    cell.heavy = (data.heavy[0].includes(row) ? " heavy-top" : "") +
      (data.heavy[1].includes(column) ? " heavy-left" : "");
    cell.where = `row ${row + 1}, column ${column + 1}`;
    return cell;
  }

  function buildBoard(root, run, number, data) {
    const board = element("section", "board", root);
    const title = element("button", "title", board);
    title.textContent = run.name; // text, never markup
    title.dataset.run = number;
    const grid = element("div", "grid", board), [rows, columns] = data.grid;
    grid.setAttribute("role", "grid");
    grid.setAttribute("aria-label", run.name);
    grid.style.setProperty("--columns", columns);
    const cells = Array.from({ length: rows * columns }, (_, i) => buildCell(grid, number, i, data));
    const heat = Object.fromEntries(Object.entries(run.heat).map(([k, v]) => [k, decoded(v)]));
    const facts = element("div", "facts", board);
    return { board, cells, facts, heat, guess: decoded(run.guess), flags: decoded(run.flags) };
  }

  function build(data) {
    const root = document.getElementById("boards"), [rows, columns] = data.grid;
    root.replaceChildren();
    root.dataset.count = data.runs.length;
    root.style.setProperty("--ratio", columns / rows);
    built.runs = data.runs.map((run, number) => buildBoard(root, run, number, data));
    built.data = data;
  }

  /* Levels of the heat layer of a run, from 0 to 1 or, where it is signed, from -1. */
  function heatOf(number, reading, layer) {
    const more = view.heat && view.heat.layer === layer ? view.heat : null;
    const levels = more ? more.levels[number] : (built.runs[number].heat[layer] || {})[reading];
    const zero = more && more.signed ? 128 : 0;
    const largest = more ? more.largest : built.data.largest[layer];
    return levels && { of: (i) => (levels[i] - zero) / (255 - zero), largest };
  }

  function drawCell(cell, token, signs, heat, part, layer) {
    const data = built.data, colour = heat ? "" : data.colours[token] || "";
    cell.className = `cell ${signs.join(" ")}${cell.heavy}${heat ? " heated" : ""}`;
    cell.classList.toggle("hot", Math.abs(part) > 0.55);
    cell.classList.toggle("below", part < 0);
    cell.style.setProperty("--heat", Math.abs(part));
    cell.style.backgroundColor = colour;
    cell.classList.toggle("coloured", colour !== "");
    cell.textContent = data.glyphs[token];
    const named = `${cell.where}: ${data.tokens[token]}`;
    cell.setAttribute("aria-label", [named, ...signs].join(", "));
    cell.title = heat ? `${named}, ${layer} ${Number((part * heat.largest).toPrecision(3))}` : named;
  }

  function drawBoard(number, reading, layer) {
    const own = built.runs[number], run = built.data.runs[number], moment = view.moment;
    const from = moment * own.cells.length, heat = heatOf(number, reading, layer);
    const guess = own.guess[reading], flags = own.flags[reading];
    const plain = built.runs[0].guess[reading];
    own.cells.forEach((cell, i) => {
      const token = guess[from + i], flag = flags[from + i], part = heat ? heat.of(from + i) : 0;
      const other = number && token !== plain[from + i], chosen = i === view.cell;
      const shown = [token, flag, other, part, layer, heat && heat.largest, chosen].join();
      if (shown === cell.shown) return; // most cells stay as they are
      cell.shown = shown;
      const marks = { given: flag & GIVEN, changed: flag & CHANGED, wrong: flag & WRONG };
      Object.assign(marks, { conflict: flag & CONFLICT, differs: other, chosen });
      drawCell(cell, token, Object.keys(marks).filter((m) => marks[m]), heat, part, layer);
    });
    own.board.classList.toggle("active", number === view.active);
    const right = run.right[reading][moment], q = run.q_halt[moment];
    const solved = right === run.cells ? "solved" : `${right} of ${run.cells} right`;
    own.facts.textContent =
      `${solved} · loss ${run.loss[reading][moment].toFixed(3)} · q ${q.toFixed(2)}`;
  }

  function describeHeat(layer) {
    const heat = view.heat && view.heat.layer === layer ? view.heat : null;
    const top = heat ? heat.largest : built.data.largest[layer];
    const below = heat && heat.signed ? " (orange: below 0)" : "";
    document.getElementById("scale").textContent =
      top === undefined ? "" : `heat: plain 0, full colour ${Number(top.toPrecision(3))}${below}`;
  }

  callbacks({
    draw(moment, data, reading, layer, active, cell, curves, path, candidates, heat) {
      const { explorer } = window;
      if (!data || moment == null) return none();
      if (built.data !== data) {
        build(data);
        explorer.buildSlider(data);
      }
      if (heat && !heat.levels) heat.levels = heat.runs.map(bytes);
      const fits = heat && heat.of === data.of && heat.reading === reading; // else another follows
      Object.assign(view, { moment: Math.min(moment, last()), active: active || 0, cell, reading });
      view.heat = fits ? heat : null;
      explorer.showMoment(data.moments[view.moment]);
      describeHeat(layer);
      built.runs.forEach((_, number) => drawBoard(number, reading, layer));
      return `${view.moment} of ${last()} · ${data.moments[view.moment]}`;
    },
  });

  return { built, view, last, set, none, plot, element, callbacks };
})();
