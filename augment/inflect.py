"""English verb forms for the rewriter: lemma, gerund and third person, and the list of verbs that open a request.

Takes single words and gives single words (or None where a form would read badly, as "sshing" does). lemminflect does
the morphology; the exceptions here are command names and verbs that our domains write as one word but inflect as two.
"""

from functools import lru_cache
from typing import Literal

Form = Literal["base", "gerund", "third"]

# Verbs that may open an imperative. A closed list: "Bash script to ..." must not be read as a request to bash.
VERBS = frozenset(
    """abort accept access act activate adapt add adjust alert align allocate allow alter analyze animate announce answer
    append apply approve arbitrate archive arrange ask assemble assert assess assign assist attach attempt authenticate
    authorize automate avoid back backup balance batch begin block book boot bring browse bring build bypass calculate
    call cancel capitalize capture cat categorize change chart check chmod choose chown classify clean clear click clone
    close code collect combine compare compile complete compose compress compute concatenate configure confirm connect
    consider construct contact continue contrast control convert copy correct count craft create crop customize cut deal
    debug decipher declare decline decode decompose decompress deactivate decrease decrypt dedupe deduce define delete
    delimit demonstrate deploy derive descend describe design detach detect determine develop devise diff disable discard
    disconnect discover discuss display divide do dock double download draft draw drop dump duplicate echo edit elaborate
    eliminate email embed empty emulate enable encode encrypt end enforce ensure enter enumerate erase escape establish
    estimate evaluate examine exclude execute expand explain explore export express extend extract fetch figure file fill
    filter finalize find finish fix flip flush fold follow forbid force forecast forget format formulate forward freeze
    gather generate get give go grab grant grep group guess guide gunzip gzip halt hand handle help hide highlight
    identify ignore illustrate implement import improve include increase indent inform initialize initiate inquire insert
    inspect install instantiate instruct integrate interpret introduce invert investigate invoke invite iterate join jump
    keep kill label launch leave let limit link list listen load locate lock log login look loop lower make manage
    manipulate map mark match maximize measure merge minimize mirror modify monitor mount move multiply mute name
    navigate negate normalize notify nuke number obtain offer open optimize order organize outline output overwrite pack
    page pair paraphrase parse partition pass paste patch pause pay perform permit pick ping pipe place plan play plot
    point post predict prefix prepare prepend preprocess present preserve pretend prevent print prioritize process produce
    program prompt propose protect provide prune pull purchase push put query quit quote raise randomize rank rate reach
    read rearrange reboot rebuild recall receive recode recommend recompile reconnect record recreate recover redirect
    reduce refactor refer reformat refresh refrain register remind remount remove rename render reorder repair repeat
    rephrase replace replay report request reread reschedule reserve reset resolve respond restart restate restore
    restrict resume retrieve return reveal reverse revert review rewrite roll rotate round route rsync run sample save say
    scale scan schedule scrape search select send separate serve set setup share shift shorten show shuffle shut sign
    simplify simulate skip slice slow solve sort spawn speak specify speed spell split squash stage start state stay stop
    store stream strip structure submit substitute subtract suggest sum summarize supply suppress suspend swap switch sync
    synchronize tag tail take talk tar tell terminate test text throw toggle touch trace track trade train transfer
    transform translate transmit transpose trash traverse trim truncate try tune turn type unblock uncomment uncompress
    undo unfreeze ungzip unhide uninstall unload unlock unmount unpack unpair unreserve unset unsync untar unzip update
    upgrade upload use utilize validate verify view visit visualize wait wake walk warn watch whisper wipe wrap write zip
    zoom buy cook fly travel withdraw deposit redeem cash activate drive ship return exchange top learn understand know hear see
    traverse prohibit eat work impose intercept ssh scp enjoin unlink dial abandon address note unzip rent""".split()
)

# Nouns as often as verbs: after "and" or a comma they are taken for verbs only where an object follows plainly.
NOUN_LIKE = frozenset(
    """access alert answer archive back backup batch block book boot call cat change chart check code control copy count
    cut deal display do dock double download draft dump echo email empty end escape export file filter fix flush force
    format function gather grant group guide hand help highlight import input label limit link list load lock log look
    loop lower map mark match measure move name number order output page pair pass patch pause pipe place plan play plot
    point post prefix present print process program prompt query quote raise rank rate read record repeat report request
    reset return reverse review roll round route run sample save scale scan schedule search see select sense serve set
    setup shift show sign slice sort split stage start state stop store stream strip structure sum supply swap switch
    tag tail take talk test text touch trace track trade train transfer transform turn type update upload use view visit
    wait walk watch whisper work wrap write zip zoom execute close clean clear open complete separate correct express
    free live cook travel deposit withdraw exchange top time size archive exclude include""".split()
)

_GERUNDS = {"untar": "untarring", "tar": "tarring", "sync": "syncing", "unsync": "unsyncing", "program": "programming",
            "overwrite": "overwriting", "input": "inputting", "cancel": "canceling", "label": "labeling",
            "focus": "focusing", "refer": "referring", "back": "backing", "log": "logging", "set": "setting",
            "do": "doing", "be": "being", "have": "having", "chmod": "chmodding", "rsync": "rsyncing", "diff": "diffing",
            "gunzip": "gunzipping"}  # fmt: skip
_THIRDS = {"overwrite": "overwrites", "do": "does", "have": "has", "be": "is", "go": "goes", "diff": "diffs"}
# Command names whose gerund nobody writes.
_NO_GERUND = frozenset({"ssh", "scp", "cd", "ls", "chown", "cat", "top"})
_NO_THIRD = frozenset({"cd", "ls", "top"})
# Written as one word, inflected as two: "backup" is a noun, "back up" the verb.
PHRASAL = {"backup": "back up", "login": "log in", "logout": "log out", "setup": "set up", "cleanup": "clean up",
           "lookup": "look up", "checkout": "check out", "startup": "start up"}  # fmt: skip
_ING_NOUNS = frozenset({"string", "thing", "nothing", "something", "everything", "anything", "during", "king", "ring",
                        "spring", "morning", "evening", "missing", "following", "existing", "remaining", "ping"})  # fmt: skip
_OTHER_S = frozenset({"is", "was", "has", "does", "this", "as", "its", "his", "process", "address", "access", "pass",
                      "compress", "express", "focus", "canvas", "bias"})  # fmt: skip


@lru_cache(maxsize=8192)
def inflect(verb: str, form: Form) -> str | None:
    """Return `verb` (a lower-case base form) in `form`, None where that form does not exist or reads badly."""
    if form == "base":
        return verb
    if form == "gerund":
        return None if verb in _NO_GERUND else _GERUNDS.get(verb) or _inflection(verb, "VBG")
    return None if verb in _NO_THIRD else _THIRDS.get(verb) or _inflection(verb, "VBZ")


def _inflection(verb: str, tag: str) -> str | None:
    from lemminflect import getInflection

    found = getInflection(verb, tag)
    return str(found[0]) if found and "-" not in found[0] else None


@lru_cache(maxsize=8192)
def base_of_third(word: str) -> str | None:
    """Return the known verb whose third person is `word` ("prints" -> "print"), None where there is none."""
    word = word.lower()
    if not word.endswith("s") or word in _OTHER_S:
        return None
    for base in (word[:-1], word[:-2], word[:-3] + "y"):
        if base in VERBS and inflect(base, "third") == word:
            return base
    return None


@lru_cache(maxsize=8192)
def base_of_gerund(word: str) -> str | None:
    """Return the known verb whose gerund is `word` ("deleting" -> "delete"), None where there is none."""
    word = word.lower()
    if not word.endswith("ing") or word in _ING_NOUNS:
        return None
    stem = word[:-3]
    candidates = [stem, stem + "e"]
    if len(stem) > 2 and stem[-1] == stem[-2]:
        candidates.append(stem[:-1])
    return next((base for base in candidates if base in VERBS and inflect(base, "gerund") == word), None)


def is_verb(word: str) -> bool:
    """Say whether `word` (any letter case) is a base form that may open an imperative."""
    return word.lower() in VERBS


@lru_cache(maxsize=8192)
def can_be_verb(word: str) -> bool:
    """Say whether `word` is a base form of any verb: for places such as "can you ..." where only a verb may stand."""
    word = word.lower()
    if word in VERBS:
        return True
    from lemminflect import getAllLemmas

    return word in getAllLemmas(word, upos="VERB").get("VERB", ())


@lru_cache(maxsize=8192)
def is_plural(noun: str) -> bool:
    """Say whether `noun` is a plural: it ends as one and has a singular."""
    word = noun.lower()
    if word in {"people", "children", "men", "women", "data", "criteria", "directions", "instructions", "vaccines"}:
        return True
    if not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return False
    from lemminflect import getAllLemmas

    lemmas = getAllLemmas(word, upos="NOUN").get("NOUN", ())
    return bool(lemmas) and all(lemma != word for lemma in lemmas)


def article(word: str) -> str:
    """Return "a" or "an", whichever is spoken before `word`."""
    low = word.lower()
    if low.startswith(("uni", "use", "usu", "uti", "eur", "one", "ubu", "once")):
        return "an" if low.startswith(("unin", "unim", "ubu")) else "a"
    if low.startswith(("hour", "honest", "heir")) or word[:3] in {"SQL", "XML", "HTM", "SSH", "FAQ", "HTT", "MP3"}:
        return "an"
    return "an" if low[:1] in set("aeiou") else "a"
