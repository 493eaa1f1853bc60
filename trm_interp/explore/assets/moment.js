/* Time: the slider, its buttons and keys, play, and lines at the moment in figures. Loaded after
boards.js, whose state it shares. */
(function () {
  const { built, view, last, set, none, plot, element, callbacks } = window.explorer;
  const LINES = { curves: 4, candidates: 1, "feature-course": 1 }; // shapes that stand at the moment
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
  let lines = 0, playing = false, settled = 0;

  window.explorer.buildSlider = function (data) {
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
  };

  window.explorer.showMoment = function (label) {
    if (Number(built.range.value) !== view.moment) built.range.value = view.moment;
    built.range.setAttribute("aria-valuetext", label);
    if (!lines) lines = setTimeout(moveLines, 60); // boards first: plotly takes its time
  };

  function moveLines() {
    lines = 0;
    for (const [id, n] of Object.entries(LINES)) {
      const graph = plot(id), update = {};
      if (!graph || !graph.layout || (graph.layout.shapes || []).length < n) continue;
      for (let i = 0; i < n; i++) {
        update[`shapes[${i}].x0`] = update[`shapes[${i}].x1`] = view.moment;
      }
      window.Plotly.relayout(graph, update);
    }
    moveDots(plot("path"), built.data.runs);
  }

  function moveDots(graph, runs) {
    if (!graph || !graph.data || graph.data.length !== 2 * runs.length) return;
    const axes = graph.data[0].type === "scatter3d" ? ["x", "y", "z"] : ["x", "y"];
    const at = (k) => runs.map((run) => [run.path[view.reading][k][view.moment]]);
    const update = Object.fromEntries(axes.map((axis, k) => [axis, at(k)]));
    window.Plotly.restyle(graph, update, runs.map((_, i) => 2 * i + 1));
  }

  function play(on) {
    playing = on;
    if (on && view.moment >= last()) go(0);
    document.getElementById("play").textContent = on ? "❚❚ pause" : "▶ play";
    return !on;
  }

  callbacks({
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
    settle(moment, side) {
      clearTimeout(settled);
      const waits = side === "features" || document.getElementById("probe-words");
      if (waits) settled = setTimeout(() => set("settled", { data: moment }), 200);
      return none();
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

  /* Keys in a cell: to another one, choose it, type a token. Whether the key meant something. */
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

  /* Elsewhere a key presses the button that names it in aria-keyshortcuts. */
  const OWN_KEYS = "input:not(.range), textarea, select, [contenteditable], [role=dialog]";
  document.addEventListener("keydown", (event) => {
    if (!built.data || event.ctrlKey || event.metaKey || event.altKey || !event.target.closest) return;
    const at = event.target, cell = at.closest("#boards .cell");
    const key = (event.shiftKey ? "Shift+" : "") + (event.key === " " ? "Space" : event.key);
    const button = document.querySelector(`[aria-keyshortcuts="${CSS.escape(key)}"]`);
    const taken = at.closest(OWN_KEYS) || (key === "Space" && at.closest("button, a")) ||
      (at.closest(".range") && /^(Arrow|Home|End)/.test(key));
    if (cell && inCell(event, cell)) event.preventDefault();
    else if (button && !taken) {
      button.click();
      event.preventDefault();
      event.stopPropagation();
    }
  }, true);
})();
