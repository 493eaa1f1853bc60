/* Time and keys. Loaded after boards.js, whose state it shares.

Why here: play and keys move the slider without a request; Dash has no keys, and no event within the
markup of a board. */
(function () {
  const { built, view, set, none, plot, callbacks } = window.explorer;
  const LINES = { curves: 4, candidates: 1, "feature-course": 1 }; // shapes that stand at the moment
  const context = () => window.dash_clientside.callback_context;
  let waiting = 0, playing = false, settled = 0;

  /* Figures follow the moment, a while after the boards. */
  window.explorer.follow = function () {
    if (!waiting) waiting = setTimeout(moveMarks, 60);
  };

  /* Lines at the moment and the dots on paths; Plotly moves them without drawing figures anew. */
  function moveMarks() {
    waiting = 0;
    for (const [id, n] of Object.entries(LINES)) {
      const graph = plot(id), update = {};
      if (!graph || !graph.layout || (graph.layout.shapes || []).length < n) continue;
      for (let i = 0; i < n; i++) {
        update[`shapes[${i}].x0`] = update[`shapes[${i}].x1`] = view.moment;
      }
      window.Plotly.relayout(graph, update);
    }
    const { runs } = built.data, graph = plot("path"), axes = ["x", "y", "z"];
    if (!graph || !graph.data || graph.data.length !== 2 * runs.length) return;
    const drawn = axes.slice(0, graph.data[0].type === "scatter3d" ? 3 : 2);
    const paths = graph._fullData.filter((_, i) => i % 2 === 0);
    const at = paths.map((path) => path.customdata.findLastIndex((m) => m <= view.moment));
    const update = Object.fromEntries(drawn.map((k) => [k, paths.map((of, i) => [of[k][at[i]]])]));
    window.Plotly.restyle(graph, update, paths.map((_, i) => 2 * i + 1));
  }

  /* The next of the moments that a button stops at, after this one or before it. */
  function next(button) {
    const { stops, onward } = built.data.jumps[button];
    const before = (at) => at < view.moment, after = (at) => at > view.moment;
    return (onward ? stops.find(after) : stops.findLast(before)) ?? none();
  }

  /* Starts or stops, says so on the button, and is what the clock's `disabled` becomes. */
  function play(on) {
    playing = on;
    document.getElementById("play").textContent = on ? "❚❚ pause" : "▶ play";
    return !on;
  }

  callbacks({
    jump: () => (built.data ? next(context().triggered_id) : none()),
    play() {
      if (!playing && next("on") === none()) set("moment", { value: 0 });
      return play(!playing);
    },
    /* One evaluation on, at every tick of the clock. */
    tick() {
      const on = playing ? next("on") : none();
      if (playing && on === none()) set("clock", { disabled: play(false) });
      return on;
    },
    /* A click on a figure goes to the moment of the point. */
    clicked() {
      const [{ value } = {}] = context().triggered;
      const point = value && value.points && value.points[0];
      return point ? Number(point.customdata ?? point.x) : none();
    },
    /* Tells panels that the machine fills of a moment at which the slider has come to rest. */
    settle(moment, side) {
      clearTimeout(settled);
      const waits = side === "features" || document.getElementById("probe-words");
      if (waits) settled = setTimeout(() => set("settled", { data: moment }), 200);
      return none();
    },
  });

  const pick = (of) => set("picked", { data: { run: Number(of.dataset.run), at: Date.now() } });

  /* The first chosen cell is the one that panels are about. */
  function setCells([first = null, ...more]) {
    set("cell", { data: first });
    set("more", { data: more });
  }

  /* Chooses a cell, or takes it to those that are chosen already and out of them again. */
  function choose(cell, further) {
    const i = Number(cell.dataset.cell), cells = new Set(further ? view.cells : [i]);
    if (further && !cells.delete(i)) cells.add(i);
    setCells([...cells].filter((of) => of != null));
    pick(cell);
  }

  document.addEventListener("click", (event) => {
    const cell = event.target.closest("#boards .cell");
    const title = event.target.closest("#boards .title");
    if (cell) choose(cell, event.shiftKey || event.ctrlKey || event.metaKey);
    if (title) pick(title);
  });

  /* Keys in a cell: to another one, choose it, type a token. Whether the key meant something. */
  function inCell(event, cell) {
    const { columns, keys } = built.data, i = Number(cell.dataset.cell);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const token = keys[event.key.toLowerCase()];
    if (event.key in moves && !event.shiftKey) {
      const to = built.boards[cell.dataset.run].cells[i + moves[event.key]];
      if (to) to.focus();
    } else if (event.key === "Enter") {
      choose(cell, event.shiftKey);
    } else if (token !== undefined) {
      setCells([i]);
      set("typed", { data: { cell: i, token, at: Date.now() } });
    } else return false;
    return true;
  }

  /* Elsewhere a key presses the button that names it in aria-keyshortcuts. */
  const OWN_KEYS = "input, textarea, select, [contenteditable], [role=dialog]";
  document.addEventListener("keydown", (event) => {
    if (!built.data || event.ctrlKey || event.metaKey || event.altKey || !event.target.closest) return;
    const at = event.target, cell = at.closest("#boards .cell");
    const key = (event.shiftKey ? "Shift+" : "") + (event.key === " " ? "Space" : event.key);
    const button = document.querySelector(`[aria-keyshortcuts="${CSS.escape(key)}"]`);
    const taken = at.closest(OWN_KEYS) || (key === "Space" && at.closest("button, a"));
    if (cell && inCell(event, cell)) event.preventDefault();
    else if (button && !taken) {
      button.click();
      event.preventDefault();
      event.stopPropagation();
    }
  }, true);
})();
