"""Studies of a checkpoint or a store, among them every figure of the seed paper.

One module a study, with

    Config                              its settings, a dataclass of `studies.settings`
    Result                              what it gives, a dataclass that knows its JSON
    run(config, tell, progress)         measures, writes tables and figures into a folder of its own
                                        and returns the result
    figures(result, ...)                by name, a figure and the table that it plots
    lines(result)                       the result in words

The measures themselves are functions of `analysis`.
"""
