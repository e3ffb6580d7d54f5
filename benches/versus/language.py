"""Text like that of a site: a large vocabulary, of which few words are used much, and words that like to follow others."""

import random
from itertools import accumulate

SYLLABLES = (
    "an ar as at be ca ce con da de di do ed en er es fa fi for ge ha hi in ing is it ka la le li lo ma me mi mo na ne "
    "ni no on or pa pe per po pre pro ra re ri ro sa se si so sta ta te ter ti tion to tra tu un ver vi wa we wi"
).split()


class Language:
    """A vocabulary; the texts come from the generator of random numbers that is handed in."""

    FOLLOWERS = 6

    def __init__(self, size=40_000, seed="language"):
        rng = random.Random(seed)
        known = {}
        while len(known) < size:
            # The frequent ones are short.
            longest = 2 if len(known) < 300 else 5
            known["".join(rng.choices(SYLLABLES, k=rng.randint(1, longest)))] = None
        self.words = list(known)
        self.weights = list(accumulate(1.0 / (rank + 2.7) for rank in range(size)))
        self.followers = [rng.choices(range(size), cum_weights=self.weights, k=self.FOLLOWERS) for _ in range(size)]

    def sentence(self, rng):
        chosen = rng.choices(range(len(self.words)), cum_weights=self.weights, k=rng.randint(5, 22))
        for at in range(1, len(chosen)):
            if rng.random() < 0.4:
                chosen[at] = self.followers[chosen[at - 1]][int(rng.random() ** 2 * self.FOLLOWERS)]
        text = " ".join([self.words[word] for word in chosen])
        return text.capitalize() + rng.choice("....?")

    def paragraph(self, rng):
        text = " ".join([self.sentence(rng) for _ in range(rng.randint(2, 7))])
        if rng.random() < 0.15:
            link = f'<a href="resolveuid/{rng.getrandbits(128):032x}" data-linktype="internal">{self.title(rng)}</a>'
            text = f"{text} {link}"
        return f"<h2>{self.title(rng)}</h2>" if rng.random() < 0.12 else f"<p>{text}</p>"

    def title(self, rng):
        return " ".join([self.words[w] for w in rng.choices(range(len(self.words)), cum_weights=self.weights, k=rng.randint(2, 5))])
