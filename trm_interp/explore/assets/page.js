/* The page around the boards: its address, what is shown of it, figures as files. Loaded after
boards.js. */
(function () {
  const { none, plot, callbacks } = window.explorer;
  let address = 0;

  callbacks({
    remember(query, names, ...values) {
      clearTimeout(address);
      if (!query) return none();
      const own = new URLSearchParams();
      names.forEach((name, i) => values[i] == null || own.set(name, values[i]));
      address = setTimeout(() => history.replaceState(null, "", `?${query}&${own}`), 250);
      return none();
    },
    exported() {
      const { triggered, triggered_id: of } = window.dash_clientside.callback_context;
      const graph = of && triggered[0].value && plot(of.figure);
      if (!graph) return none();
      const { width = 800, height = 500 } = graph._fullLayout;
      const how = { format: of.format, filename: of.figure, scale: of.format === "png" ? 2 : 1 };
      window.Plotly.downloadImage(graph, { width, height, ...how });
      return none();
    },
    side: (side) => ["run", "features", "around"].map((name) => name !== side),
    facts: (layer) => layer !== "probe",
    toggle: (clicks, dark) => !dark,
    theme: (dark) => [dark ? "dark" : "light", dark ? "Light" : "Dark"],
    kind: (kind) => [kind === "copy", kind !== "copy"],
  });
})();
