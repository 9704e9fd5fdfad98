"""What is checked of a site before any model is known: its port, its canonical name."""

from __future__ import annotations

from collections.abc import Collection

from hookql.errors import did_you_mean, suggest
from hookql.language import ast, names
from hookql.language.formatter import format_port
from hookql.language.report import Report


def check_site(report: Report, site: ast.Site, operands: Collection[str]) -> None:
    """Report what is wrong with a site that is read as these of ``x``, ``input`` and ``output``."""
    port = None if isinstance(site, ast.ModelSite) else site.port
    if port is not None and not _check_port(report, port):
        return
    if isinstance(site, ast.CanonicalSite) and not _check_canonical(report, site):
        return
    both = sorted({"input", "output"} & set(operands))
    if not both:
        return
    words = " and ".join(f"`{word}`" for word in both)
    name = " is the name of a port" if len(both) == 1 else " are the names of ports"
    help = None
    if port is not None:
        at, what = port.span, f"this site is one port, `{format_port(port)}`"
        help = f"leave `{format_port(port)}` out, or write `x`"
    elif isinstance(site, ast.ModelSite):
        at, what = site.span, "this is one tensor of the whole model"
    elif isinstance(site, ast.CanonicalSite) and site.name not in names.WHOLE:
        at, what = site.span, f"`@{site.name}` is one tensor"
        whole = ", ".join(f"`@{name}`" for name in names.WHOLE)
        help = f"canonical sites of whole modules are {whole}"
    else:
        return
    report.error("needs-whole-module", f"{words}{name} of a module, and {what}", at, help)


def _check_port(report: Report, port: ast.Port) -> bool:
    """Whether there is such a port."""
    if port.name not in names.PORTS:
        short = port.name if len(port.name) > 1 else "?"
        near = next(
            (p for p in names.PORTS if p.startswith(short)), suggest(port.name, names.PORTS)
        )
        report.error(
            "unknown-port",
            f"there is no port `:{port.name}`",
            port.span,
            f"did you mean `:{near}`?" if near else None,
            ("ports: :output, :output[1], :input, :input.NAME, :pattern",),
        )
        return False
    if port.name == "pattern" and port.element is not None:
        message = "the port `:pattern` has no elements"
        report.error("unknown-port", message, port.span, "write `:pattern`")
        return False
    return True


def _check_canonical(report: Report, site: ast.CanonicalSite) -> bool:
    """Whether there is such a canonical site, with this index and this port."""
    if site.name not in names.CANONICAL:
        near = did_you_mean(site.name, names.CANONICAL)
        report.error(
            "unknown-site",
            f"there is no canonical site `@{site.name}`",
            site.span,
            near.replace("`", "`@", 1) if near else None,
            (f"canonical sites: {', '.join('@' + name for name in names.CANONICAL)}",),
        )
        return False
    if site.index is not None and site.name in names.ONCE:
        message = f"a model has one `@{site.name}`, which takes no index"
        report.error("bad-index", message, site.index.span)
        return False
    if site.port is not None and (site.name not in names.WHOLE or site.port.name == "pattern"):
        at = site.port.span
        whole = ", ".join(f"`@{name}`" for name in names.WHOLE)
        message = f"`@{site.name}` is one tensor, which has no ports"
        help = f"canonical sites with ports are {whole}"
        if site.port.name == "pattern":
            message, help = f"`@{site.name}` has no port `:pattern`", "write `@pattern`"
        report.error("unknown-port", message, at, help)
        return False
    return True
