"""Parses budgets such as 0.4M, 400k or 400000."""

from __future__ import annotations

import re

from ..errors import UserError

BUDGETS = 'budgets'  # the folder of the runs that compare budgets
FACTORS = {'': 1, 'k': 1_000, 'm': 1_000_000}


def parse_budget(text: str | int) -> int:
    """Return the number of parameters in a number that ``k`` (thousand) or ``M`` (million) may follow.

    Raises:
        UserError: for anything else, and for less than one parameter.
    """
    match = re.fullmatch(r'(\d{1,3}(?:,\d{3})+|\d{1,15}(?:\.\d+)?|\.\d+)([kKmM]?)', str(text).strip())
    if isinstance(text, bool) or match is None:
        raise UserError(f'A budget is a number of parameters such as 0.4M, 400k or 400000; got {text!r}.')
    budget = round(float(match[1].replace(',', '')) * FACTORS[match[2].lower()])
    if budget < 1:
        raise UserError(f'A budget of {text} is less than one parameter; the smallest is 1.')
    if '.' in match[1] and not match[2]:
        raise UserError(f'A budget is a whole number of parameters, but {text} is not one.')
    return budget
