"""Changes of the mutation check that nothing can notice, each with its reason."""

EQUIVALENT: dict[tuple[str, str, str], str] = {  # file, line and change: why
}
