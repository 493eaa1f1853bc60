/* The address and figures as files, which are the browser's own. Loaded after boards.js. */
(function () {
  const { none, plot, callbacks } = window.explorer;
  let address = 0;

  callbacks({
    /* The view in the address, a while after it changed, and without an entry in the history. */
    remember(query, names, ...values) {
      clearTimeout(address);
      if (!query) return none();
      const own = new URLSearchParams();
      const isSet = (value) => value != null && value.length !== 0;
      names.forEach((name, i) => isSet(values[i]) && own.set(name, values[i]));
      address = setTimeout(() => history.replaceState(null, "", `?${query}&${own}`), 250);
      return none();
    },
    /* A figure as SVG or PNG, by the plotly that drew it: this needs no program on the machine. */
    exported() {
      const { triggered, triggered_id: of } = window.dash_clientside.callback_context;
      const graph = of && triggered[0].value && plot(of.figure);
      if (!graph) return none();
      const { width = 800, height = 500 } = graph._fullLayout;
      const how = { format: of.format, filename: of.figure, scale: of.format === "png" ? 2 : 1 };
      window.Plotly.downloadImage(graph, { width, height, ...how });
      return none();
    },
  });
})();
