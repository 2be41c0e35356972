"""What is done once a study has nothing left to read: texts go that the archive's policy no longer allows."""

from __future__ import annotations

import asyncio
import logging

from env.errors import ApportionError
from planner.archive import Archive
from planner.archive.upkeep import Upkeep

log = logging.getLogger(__name__)

REMEDY = "the study's result is not touched by this; apply the policy by hand with `apportion bank prune --yes`"


async def drop_old_texts(archive: Archive, study_id: str) -> int:
    """Apply the archive's text policy at a study's end, whatever its end is; returns how many texts went.

    A step that may run again, and that never fails: housekeeping must not cost anybody a plan. What other unfinished
    studies may still read stays until they end.

    Args:
        archive: whose bank.
        study_id: the study that ends; it has nothing left to read.
    """
    try:
        dropped = await asyncio.to_thread(_drop, archive, study_id)
    except ApportionError as error:
        log.warning("the text policy could not be applied at the end of study %s: %s; %s", study_id, error, REMEDY)
        return 0
    except Exception:
        log.exception("the text policy could not be applied at the end of study %s; %s", study_id, REMEDY)
        return 0
    if dropped:
        log.info("%d texts dropped at the end of study %s", dropped, study_id)
    return dropped


def _drop(archive: Archive, study_id: str) -> int:
    return Upkeep(archive.engine).drop_texts(archive.bank.text_policy, study_id)
