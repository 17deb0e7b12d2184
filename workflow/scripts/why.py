"""Tells which jobs would run, and why."""

if __name__ == "__main__":
    from vltaxon.logs import tell
    from vltaxon.why import planned, why

    configs = snakemake.params.configs
    tell(snakemake, why(planned(["--configfile", *configs] if configs else [], snakemake.params.given)))
