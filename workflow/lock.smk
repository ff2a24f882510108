# Snakemake's lock of this folder outlives a kill -9, and a person would have to clear it (`snakemake --unlock`). So every
# Snakemake that lives here shares another lock, which the system takes from it when it ends, however it ends: one that
# can have it alone knows that nothing else runs here, and that what locks are left are stale.

import contextlib
import fcntl

with contextlib.suppress(OSError):  # a folder that cannot be written, or without locks: Snakemake's own words stand
    Path(".snakemake").mkdir(exist_ok=True)
    LIVING = open(".snakemake/living", "w")  # open as long as this process lives
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(LIVING, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for stale in Path(".snakemake/locks").glob("*.lock"):
            stale.unlink()
            logger.info(f"Removed {stale}, which a killed run had left.")
    fcntl.flock(LIVING, fcntl.LOCK_SH)
