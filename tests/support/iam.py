"""What AWS's IAM would say, by an evaluator that nobody here wrote: @cloud-copilot/iam-simulate, from npm.

It knows the actions, resources and condition keys of KMS from AWS's own service authorisation reference, and refuses
questions with keys that an action doesn't have.
"""

from __future__ import annotations

import atexit
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import node

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT = "111122223333"


@cache
def _evaluator() -> subprocess.Popen[str]:
    program = subprocess.Popen(
        ["node", Path(__file__).with_suffix(".mjs"), node.folder("@cloud-copilot/iam-simulate")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(program.kill)
    return program


def allows(
    policy: Mapping[str, Any], action: str, arn: str, context: Mapping[str, Any], account: str = ACCOUNT
) -> bool:
    """Tell whether an identity policy allows a call, where the key policy leaves all to the account's IAM policies.

    Args:
        policy: The identity policy.
        action: Such as ``kms:Sign``.
        arn: The key or alias; ``*`` for calls that have no resource.
        context: The request's condition keys.
        account: Who owns caller and key.
    """
    program = _evaluator()
    assert program.stdin is not None
    assert program.stdout is not None
    question = {"policy": policy, "action": action, "arn": arn, "account": account, "context": context}
    print(json.dumps(question), file=program.stdin, flush=True)
    answer = json.loads(program.stdout.readline())
    assert not answer["errors"], answer["errors"]
    return bool(answer["allowed"])
