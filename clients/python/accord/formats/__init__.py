"""Preference data as files, read strictly, and written so that reading returns the same records. Layouts of other tools
are in `accord.formats.layouts`. Each is read as lines of these forms; `jsonl` contains these lines as they are:

| form     | keys of a line (prompt: a text, a raw dialogue, or a list of messages)       |
|----------|-------------------------------------------------------------------------------|
| pairs    | prompt, chosen, rejected; margin, tie                                         |
| rankings | prompt, responses, ranks (0 is best; equal ranks tie)                         |
| ratings  | prompt, response, rating; min, max (0 to 1 when absent), criterion            |
| prompts  | prompt                                                                        |

Each line may have source, annotator and annotator_kind (`human`, `simulated`, `model`). A judgement may have a comment,
criteria (a list of answer, criterion, value, min, max; answer is chosen, rejected, response, or an index of responses)
and truncated (a list of the answers, named in the same way, that were cut off).
Texts may have the conversational form of TRL: prompt is a list of {"role", "content"}, an answer is a list that ends
with one assistant message. Pairs may omit the prompt if both answers begin with it (hh-rlhf, TRL's implicit prompts).
"""

from accord.formats.layouts.layout import layout_names as layout_names
from accord.formats.layouts.layout import layout_of as layout_of
from accord.formats.reading import Form as Form
from accord.formats.reading import ParsedFile as ParsedFile
from accord.formats.reading import read as read
from accord.formats.writing import from_record as from_record
from accord.formats.writing import to_line as to_line
from accord.formats.writing import write as write

__all__ = ["Form", "ParsedFile", "from_record", "layout_names", "layout_of", "read", "to_line", "write"]
