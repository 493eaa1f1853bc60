/* Boards, drawn in the browser from bytes of the runs that it has.

Why here: a move of the slider costs no request, so boards follow within a frame while the machine
computes a fork. As Dash components, the cells of all boards would be rendered anew at every move and
lose the keyboard's focus. What a cell is called, which signs it has and what a heat layer says comes
from payload.py: nothing here knows a task or an architecture. */
window.explorer = (function () {
  const CHOSEN = 32; // the one sign that the server does not know, after those of payload.py
  const built = { data: null, boards: [] };
  const view = { moment: 0, cells: new Set() };
  const none = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const plot = (id) => document.querySelector(`#${id} .js-plotly-plot`);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const each = (of, how) => Object.fromEntries(Object.entries(of).map(([k, v]) => [k, how(v)]));

  /* Makes functions of these files callbacks of the page. */
  function callbacks(more) {
    const all = (window.dash_clientside = window.dash_clientside || {});
    all.explore = Object.assign(all.explore || {}, more);
  }

  /* Puts other runs on the page; here, so that cells are drawn without looking for them again. */
  function build(data, place) {
    const root = document.getElementById(place);
    root.innerHTML = data.markup; // in which names are escaped
    root.dataset.count = data.runs.length;
    root.style.setProperty("--ratio", data.ratio);
    built.boards = [...root.children].map((board, number) => ({
      board,
      cells: [...board.querySelectorAll(".cell")],
      facts: board.querySelector(".facts"),
      readings: each(data.runs[number].readings, (of) => each(of, bytes)),
    }));
    built.data = data;
  }

  /* The heat layer that is chosen: of the runs' own, or one that was computed for what is shown. */
  function layerOf(name, reading, heat) {
    const fits = heat && heat.name === name && heat.of === built.data.of;
    if (!fits || heat.reading !== reading) return built.data.layers[name];
    heat.levels = heat.levels || heat.runs.map(bytes);
    return heat;
  }

  /* Draws a cell where it differs from what is drawn: most stay as they are. */
  function drawCell(cell, token, flags, part, layer) {
    const shown = [token, flags, part, layer && layer.name, layer && layer.largest].join();
    if (shown === cell.shown) return;
    cell.shown = shown;
    const { glyphs, tokens, colours, deep, signs } = built.data;
    const own = signs.filter((_, bit) => flags & (1 << bit));
    const colour = layer ? "" : colours[token] || "";
    cell.className = `cell ${own.join(" ")} ${cell.dataset.heavy}`;
    cell.classList.toggle("heated", Boolean(layer));
    cell.classList.toggle("hot", Math.abs(part) > 0.55);
    cell.classList.toggle("below", part < 0);
    cell.classList.toggle("coloured", colour !== "");
    cell.classList.toggle("deep", colour !== "" && deep[token]);
    cell.style.setProperty("--heat", Math.abs(part));
    cell.style.backgroundColor = colour;
    cell.textContent = glyphs[token];
    const named = `${cell.dataset.where}: ${tokens[token]}`;
    const heat = layer ? `, ${layer.name} ${Number((part * layer.largest).toPrecision(3))}` : "";
    cell.setAttribute("aria-label", [named, ...own].join(", "));
    cell.title = named + heat;
  }

  /* Draws the board of a run at the moment. */
  function drawBoard(own, number) {
    const { moment, reading, layer } = view, of = own.readings[reading];
    const levels = layer && (layer.levels ? layer.levels[number] : of[layer.name]);
    const zero = layer ? layer.zero : 0;
    own.cells.forEach((cell, i) => {
      const at = moment * own.cells.length + i;
      const part = layer ? (levels[at] - zero) / (255 - zero) : 0;
      drawCell(cell, of.guess[at], of.flags[at] | (view.cells.has(i) && CHOSEN), part, layer);
    });
    own.board.classList.toggle("active", number === view.active);
    own.facts.textContent = built.data.runs[number].facts[reading][moment];
  }

  /* The first board, which comes with the document, before the page is there. */
  function first(data, reading) {
    build(data, "first-board");
    Object.assign(view, { reading, active: 0 });
    built.boards.forEach(drawBoard);
  }

  /* All boards at the moment; what the moment is called, and what the heat is. */
  function draw() {
    const { data } = built;
    if (!data || view.asked == null) return [none(), none()];
    const last = data.moments.length - 1;
    view.moment = Math.min(view.asked, last);
    view.layer = layerOf(view.heated, view.reading, view.heat);
    built.boards.forEach(drawBoard);
    window.explorer.follow(); // boards first: plotly takes its time
    const words = view.layer ? view.layer.words : "";
    return [`${view.moment} of ${last} · ${data.moments[view.moment]}`, words];
  }

  /* Dash holds a callback back while the machine makes one of its inputs. So what the slider moves
  has nothing to do with runs, heat and figures, which each draw when they come. */
  callbacks({
    draw(moment, reading, heated, cell, more) {
      const cells = new Set([cell, ...(more || [])]);
      Object.assign(view, { asked: moment, reading, heated, cells });
      return draw();
    },
    show(data, active) {
      if (data && built.data !== data) {
        build(data, "boards");
        document.getElementById("first-board")?.remove();
      }
      view.active = active || 0;
      return draw();
    },
    heat(heat) {
      view.heat = heat;
      return draw();
    },
    follow() {
      if (built.data) window.explorer.follow();
      return none();
    },
  });

  return { first, built, view, set, none, plot, callbacks };
})();
