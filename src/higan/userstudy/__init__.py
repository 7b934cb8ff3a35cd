"""Ask people what every stage of a generator changes: the paper's Fig. 3(b), from building a study to its analysis."""

from higan.userstudy.answers import Answers, Given, Rater
from higan.userstudy.design import CHOICES, Design, Trial, block
from higan.userstudy.folder import Expected, UserStudy, open_study

__all__ = ["CHOICES", "Answers", "Design", "Expected", "Given", "Rater", "Trial", "UserStudy", "block", "open_study"]
