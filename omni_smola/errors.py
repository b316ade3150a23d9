"""What a user can set right, and how errors are told."""


class UserError(ValueError):
    """A mistake in a config, file, checkpoint or image, told in one sentence.

    The sentence names the thing, the value seen, the values allowed and the way out. `main` prints
    it without a traceback and exits with status 2.
    """


class Preempted(BaseException):
    """A signal ended the run in good order: `main` prints it and exits with status 0.

    No Exception, so that no handler of errors holds it up.
    """


def first_line(error: BaseException) -> str:
    """What an error says, in one line; of a long one the beginning and the end."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 300 else f"{line[:140]} ... {line[-150:]}"
