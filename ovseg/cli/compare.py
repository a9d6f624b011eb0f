"""Train and evaluate the methods of the published table side by side.

    ovseg compare --steps 7500 --seeds 0,1,2 --output output/compare

Each method is a config of configs/methods: the same backbone, data, steps and seeds. Its runs lie
in folders of --output. What a method needs before, such as the labels of a teacher, is made first
(docs/methods.md). A table and a chart (comparison.md, comparison.json, comparison.png) are
written after every run. A comparison that was interrupted goes on where it was when it is started
again with the same command, and with more --seeds or --methods it does those that are missing. The
same command started twice shares the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ovseg.cli.options import add_opts
from ovseg.config.first_look import check_output_folder, own_names
from ovseg.config.quick import check_opts
from ovseg.data.splits import check_dataset_names
from ovseg.errors import Parser, UserError, cli_errors


def build_parser() -> Parser:
    """The options of a comparison."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--methods", default="", metavar="NAMES",
        help="configs of configs/methods, separated by commas; default: all")  # fmt: skip
    add("--steps", type=int, default=7500, metavar="N",
        help="iterations of each training; default: 7500")  # fmt: skip
    add("--seeds", default="0,1,2", metavar="NUMBERS", help="a training for each; default: 0,1,2")
    add("--dataset", default="stickerscenes_test", metavar="NAME",
        help="data set to evaluate on; default: stickerscenes_test")  # fmt: skip
    add("--output", default="output/compare", metavar="DIR", help="default: output/compare")
    add_opts(parser)
    return parser


def read_seeds(text: str) -> tuple[int, ...]:
    """Seeds in their order.

    Raises:
        UserError: there are none, or something else.
    """
    words = text.replace(",", " ").split()
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise UserError(f"--seeds {text!r}: give whole numbers from 0 on, such as 0,1,2")
    return tuple(dict.fromkeys(map(int, words)))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors():
        args = build_parser().parse_args(argv)
        if args.steps < 1:
            raise UserError(f"--steps {args.steps} is too small; give 1 or more")
        seeds = read_seeds(args.seeds)
        given = check_opts(args.opts)
        custom = given.DATASETS.CUSTOM if given is not None else ()
        own = own_names(custom)
        check_dataset_names(name for name in [args.dataset] if name not in own)
        check_output_folder(args.output, "--output")

        from ovseg.data.own.registration import register_custom
        from ovseg.engine.checks import check_datasets
        from ovseg.engine.comparison import Comparison, check_methods
        from ovseg.evaluation.comparison_report import comparison_table, draw_comparison_chart
        from ovseg.utils.io import write_json, write_text
        from ovseg.utils.settings import check_folder_settings, record_folder_settings

        methods = check_methods(args.methods.replace(",", " ").split())
        register_custom(custom)
        check_datasets([args.dataset], key="--dataset")
        output = Path(args.output)
        plan = Comparison(methods, seeds, args.steps, args.dataset, output, tuple(args.opts))
        plan.check()
        settings = {"steps": args.steps, "dataset": args.dataset, "KEY VALUE pairs": args.opts}
        check_folder_settings(output, settings)
        record_folder_settings(output, settings)
        title, table = f"{args.dataset}, {args.steps} steps", "no run is finished"
        for _ in plan.run(lambda line: print(f"\n{line}\n", flush=True)):
            if not (results := plan.results()):
                continue
            table = comparison_table(results)
            write_json(output / "comparison.json", {"settings": settings, "results": results})
            write_text(output / "comparison.md", f"{title}\n\n{table}\n")
            draw_comparison_chart(results, output / "comparison.png", title)
        print(f"\n{table}\n\nWritten to {output}")
