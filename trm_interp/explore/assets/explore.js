/* What the page does without asking the server: boards, slider, keys. */
(function () {
  const GIVEN = 1, WRONG = 2, CONFLICT = 4, CHANGED = 8;
  const built = { data: null, runs: [] };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const decoded = (of) => Object.fromEntries(Object.entries(of).map(([k, v]) => [k, bytes(v)]));
  const none = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const view = { moment: 0, active: 0, cell: null };
  const last = () => (built.data ? built.data.moments.length - 1 : 0);
  const plot = (id) => document.querySelector(`#${id} .js-plotly-plot`);

  function element(tag, className, parent) {
    const made = document.createElement(tag);
    made.className = className;
    parent.append(made);
    return made;
  }

  function buildSlider(data) {
    const root = document.getElementById("slider"), end = data.moments.length - 1;
    root.replaceChildren();
    const range = element("input", "range", root);
    Object.assign(range, { type: "range", min: 0, max: end, step: 1, value: 0 });
    range.setAttribute("aria-label", "moment");
    range.addEventListener("input", () => go(Number(range.value)));
    const ticks = element("div", "ticks", root), every = Math.ceil(data.steps.length / 18);
    data.steps.forEach((moment, step) => {
      if (step % every) return;
      const tick = element("span", "", ticks);
      tick.textContent = step;
      tick.style.left = `${(100 * moment) / end}%`;
    });
    built.range = range;
  }

  function build(data) {
    buildSlider(data);
    const root = document.getElementById("boards");
    const [rows, columns] = data.grid;
    root.replaceChildren();
    root.dataset.count = data.runs.length;
    built.runs = data.runs.map((run, number) => {
      const board = element("section", "board", root);
      const title = element("button", "title", board);
      title.textContent = run.name; // text, never markup
      title.dataset.run = number;
      const grid = element("div", "grid", board);
      grid.setAttribute("role", "grid");
      grid.setAttribute("aria-label", run.name);
      grid.style.setProperty("--columns", columns);
      const cells = [];
      for (let i = 0; i < rows * columns; i++) {
        const cell = element("div", "cell", grid);
        const row = Math.floor(i / columns), column = i % columns;
        cell.setAttribute("role", "gridcell");
        cell.tabIndex = i ? -1 : 0;
        cell.dataset.run = number;
        cell.dataset.cell = i;
        cell.heavy = (data.heavy[0].includes(row) ? " heavy-top" : "") +
          (data.heavy[1].includes(column) ? " heavy-left" : "");
        cell.where = `row ${row + 1}, column ${column + 1}`;
        cells.push(cell);
      }
      const heat = Object.fromEntries(Object.entries(run.heat).map(([k, v]) => [k, decoded(v)]));
      const facts = element("div", "facts", board);
      return { board, cells, facts, heat, guess: decoded(run.guess), flags: decoded(run.flags) };
    });
    built.data = data;
  }

  function drawBoard(number, moment, reading, layer) {
    const data = built.data, run = data.runs[number], own = built.runs[number];
    const n = own.cells.length, from = moment * n;
    const guess = own.guess[reading], flags = own.flags[reading];
    const plain = built.runs[0].guess[reading], heat = (own.heat[layer] || {})[reading];
    own.cells.forEach((cell, i) => {
      const token = guess[from + i], flag = flags[from + i], signs = [];
      const other = number && token !== plain[from + i], level = heat ? heat[from + i] : 0;
      const shown = [token, flag, other, level, layer, i === view.cell].join();
      if (shown === cell.shown) return; // most cells stay as they are
      cell.shown = shown;
      if (flag & GIVEN) signs.push("given");
      if (flag & CHANGED) signs.push("changed");
      if (flag & WRONG) signs.push("wrong");
      if (flag & CONFLICT) signs.push("conflict");
      if (other) signs.push("differs");
      const warm = level / 255;
      const chosen = i === view.cell ? " chosen" : "";
      cell.className = `cell ${signs.join(" ")}${cell.heavy}${chosen}${heat ? " heated" : ""}`;
      cell.classList.toggle("hot", warm > 0.55);
      cell.style.setProperty("--heat", warm);
      const colour = heat ? "" : data.colours[token] || "";
      cell.style.backgroundColor = colour;
      cell.classList.toggle("coloured", colour !== "");
      cell.textContent = data.glyphs[token];
      cell.setAttribute("aria-label", [`${cell.where}: ${data.tokens[token]}`, ...signs].join(", "));
      cell.title = heat
        ? `${cell.where}: ${data.tokens[token]}, ${layer} ${(warm * data.largest[layer]).toFixed(3)}`
        : `${cell.where}: ${data.tokens[token]}`;
    });
    own.board.classList.toggle("active", number === view.active);
    const right = run.right[reading][moment], q = run.q_halt[moment];
    const solved = right === run.cells ? "solved" : `${right} of ${run.cells} right`;
    own.facts.textContent =
      `${solved} · loss ${run.loss[reading][moment].toFixed(3)} · q ${q.toFixed(2)}`;
  }

  function moveLines() {
    const { moment, reading } = view;
    lines = 0;
    for (const [id, n] of [["curves", 4], ["candidates", 1]]) {
      const graph = plot(id);
      if (!graph || !graph.layout || (graph.layout.shapes || []).length < n) continue;
      const update = {};
      for (let i = 0; i < n; i++) {
        update[`shapes[${i}].x0`] = update[`shapes[${i}].x1`] = moment;
      }
      window.Plotly.relayout(graph, update);
    }
    const graph = plot("path"), runs = built.data.runs;
    if (!graph || !graph.data || graph.data.length !== 2 * runs.length) return;
    const axes = graph.data[0].type === "scatter3d" ? ["x", "y", "z"] : ["x", "y"];
    const update = {};
    axes.forEach((axis, k) => {
      update[axis] = runs.map((run) => [run.path[reading][k][moment]]);
    });
    window.Plotly.restyle(graph, update, runs.map((_, i) => 2 * i + 1));
  }

  const go = (moment) => set("moment", { data: Math.min(Math.max(moment, 0), last()) });
  const before = (ends) => [...ends].reverse().find((m) => m < view.moment) ?? 0;
  const after = (ends) => ends.find((m) => m > view.moment) ?? last();
  const jumps = {
    first: () => 0,
    last: () => last(),
    back: () => view.moment - 1,
    on: () => view.moment + 1,
    "cycle-back": () => before(built.data.cycles),
    "cycle-on": () => after(built.data.cycles),
    "step-back": () => before(built.data.steps),
    "step-on": () => after(built.data.steps),
  };

  let lines = 0, address = 0, playing = false;

  function play(on) {
    playing = on;
    if (on && view.moment >= last()) go(0);
    document.getElementById("play").textContent = on ? "❚❚ pause" : "▶ play";
    return !on;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    explore: {
      draw(moment, data, reading, layer, active, cell) {
        if (!data || moment == null) return none();
        if (built.data !== data) build(data);
        Object.assign(view, { moment: Math.min(moment, last()), active: active || 0, cell });
        if (Number(built.range.value) !== view.moment) built.range.value = view.moment;
        built.range.setAttribute("aria-valuetext", data.moments[view.moment]);
        const top = data.largest[layer], scale = document.getElementById("scale");
        scale.textContent = top === undefined ? "" : `heat: plain 0, full colour ${top}`;
        built.runs.forEach((_, number) => drawBoard(number, view.moment, reading, layer));
        view.reading = reading;
        if (!lines) lines = setTimeout(moveLines, 60); // boards first: plotly takes its time
        return `${view.moment} of ${last()} · ${data.moments[view.moment]}`;
      },
      jump() {
        const id = window.dash_clientside.callback_context.triggered_id;
        return built.data && jumps[id] ? Math.min(Math.max(jumps[id](), 0), last()) : none();
      },
      play: () => play(!playing),
      tick() {
        if (!playing) return none();
        if (view.moment >= last()) set("clock", { disabled: play(false) });
        else go(view.moment + 1);
        return none();
      },
      follow() {
        const [{ value } = {}] = window.dash_clientside.callback_context.triggered;
        const point = value && value.points && value.points[0];
        return point ? Number(point.customdata ?? point.x) : none();
      },
      remember(query, moment, reading, layer, active, cell, dims) {
        clearTimeout(address);
        if (query) {
          const own = new URLSearchParams({ m: moment, read: reading, layer, run: active || 0, dims });
          if (cell != null) own.set("cell", cell);
          address = setTimeout(() => history.replaceState(null, "", `?${query}&${own}`), 250);
        }
        return none();
      },
      toggle: (clicks, dark) => !dark,
      theme: (dark) => [dark ? "dark" : "light", dark ? "Light" : "Dark"],
      kind: (kind) => [kind === "copy", kind !== "copy"],
    },
  });

  function chooseCell(cell) {
    set("cell", { data: Number(cell.dataset.cell) });
    set("picked", { data: { run: Number(cell.dataset.run), at: Date.now() } });
  }

  document.addEventListener("click", (event) => {
    const cell = event.target.closest("#boards .cell");
    const title = event.target.closest("#boards .title");
    if (cell) chooseCell(cell);
    if (title) set("picked", { data: { run: Number(title.dataset.run), at: Date.now() } });
  });

  function inCell(event, cell) {
    const columns = built.data.grid[1], i = Number(cell.dataset.cell);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const token = built.data.keys[event.key.toLowerCase()];
    if (event.key in moves && !event.shiftKey) {
      const to = built.runs[cell.dataset.run].cells[i + moves[event.key]];
      if (to) to.focus();
    } else if (event.key === "Enter") {
      chooseCell(cell);
    } else if (token !== undefined) {
      set("cell", { data: i });
      set("typed", { data: { cell: i, token, at: Date.now() } });
    } else return false;
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (!built.data || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target;
    const cell = at.closest && at.closest("#boards .cell");
    if (cell && inCell(event, cell)) return event.preventDefault();
    if (at.closest && at.closest("input:not(.range), textarea, select, [contenteditable], [role=dialog]")) return;
    const onSlider = at.closest && at.closest(".range");
    const onButton = at.closest && at.closest("button, a");
    const key = (event.shiftKey ? "Shift+" : "") + event.key;
    const named = { "Shift+ArrowLeft": "cycle-back", "Shift+ArrowRight": "cycle-on" };
    Object.assign(named, { PageUp: "step-back", PageDown: "step-on" });
    if (!onSlider) {
      Object.assign(named, { ArrowLeft: "back", ArrowRight: "on", Home: "first", End: "last" });
    }
    if (key in named) go(jumps[named[key]]());
    else if (key === " " && !onButton) set("clock", { disabled: play(!playing) });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
})();
