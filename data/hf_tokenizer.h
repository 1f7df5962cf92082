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
//  - One piece may come of several pairs. SentencePiece merges the leftmost of all of them first,
//    the library all of one pair before all of another. Where two such pairs overlap, the order
//    that is written here gives the same (order_of_splits); else it could matter only if a piece
//    that contains this one had been learnt before it.
#pragma once

#include <map>
#include <string>

#include "data/sentencepiece_tokenizer.h"

namespace caravan {

// File name to contents: tokenizer.json, tokenizer_config.json, special_tokens_map.json and
// tokenizer.model. Errors: data_error.
std::map<std::string, std::string> hf_tokenizer_files(const SentencePieceTokenizer& tokenizer);

// The lengths in bytes of the left parts into which a piece may be split, in the order in which
// their merges must stand. Two splits x y and y z of one piece (their y the same symbol of the
// text) overlap; the left one, x y, must win, so it comes first. Only where x y = y x (runs of one
// unit) do both overlap each other; there the longer left part comes first, as runs are merged
// from the left into equal parts with the rest at their right end. `lefts` is sorted.
std::vector<size_t> order_of_splits(const std::string& piece, std::vector<size_t> lefts);

}  // namespace caravan
