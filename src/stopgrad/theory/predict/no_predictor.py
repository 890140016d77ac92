"""No predictor, with or without stop-gradient."""

import numpy as np

from stopgrad.theory.predict.case import Case


class NoPredictor(Case):
    """No predictor, with or without stop-gradient."""

    note = (
        "No predictor: W' = -W (X' + eta I), without stop-gradient -W (2 X' + eta I) (tian2021, section 2; "
        "its Eq. 57 multiplies from the wrong side)."
    )
    fallback = "predictor"
    numbers = ("eta",)
    parts = (("predictor", "linear"),)

    @property
    def fall(self) -> np.ndarray:
        """Rate at which w decays; beside a target of its own only its sign counts. (..., n)"""
        return (1 if self.x.stops else 2) * (self.x.l_s - self.x.l_d) + self.x.eta

    @property
    def rate(self) -> float | None:
        """The smallest `fall`; None beside a target of its own."""
        return None if self.x.follows else float(self.fall.min())

    def survivors(self) -> np.ndarray:
        """Those that nothing makes fall. (..., n)"""
        return np.asarray((self.fall == 0) & (self.w0 > 0))

    def ends(self, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """They stay where they start. (n,) each"""
        return self.start, np.where(alive, self.x.s0, 0.0)
