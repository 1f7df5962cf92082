// A SentencePiece vocabulary as files that Hugging Face's transformers load (AutoTokenizer, as
// PreTrainedTokenizerFast), with the same ids for the same text. For vocabularies that
// train_tokenizer() makes: BPE, bytes for unknown characters, nothing normalised. Others are
// refused: what they do to text has no counterpart that is known to be equal.
//
// What differs, there and here:
//  - U+2581 in text is a space there (the vocabulary writes spaces so); here it stays what it is.
//  - "<s>", "</s>" and "<unk>" in text are tokens there unless `split_special_tokens` is set: as
//    with encode_with_special.
//  - Text of more than 256 KiB is cut before a line here, so that a token that spans the end of a
//    line may be two.
//
// One piece may come of several pairs ("aa" "a" and "a" "aa"): SentencePiece merges the leftmost of
// all of them first, the library all of the pair of lowest rank. That this is the same whatever the
// order of a piece's pairs is not proved here: a search over ten thousand random vocabularies and
// 1.6 million texts has found no difference, and the tests compare 10 MB with long runs.
#pragma once

#include <map>
#include <string>

#include "data/sentencepiece_tokenizer.h"

namespace caravan {

// File name to contents: tokenizer.json, tokenizer_config.json, special_tokens_map.json and
// tokenizer.model. Errors: data_error.
std::map<std::string, std::string> hf_tokenizer_files(const SentencePieceTokenizer& tokenizer);

}  // namespace caravan
