// Keys of config.json that do not change what a language model computes from ids to logits, and the
// check that nothing else is left. What decides about the model is read in models/hf_config.cpp.
#pragma once

#include <span>
#include <string>

namespace caravan {

class JsonKeys;

// Takes keys without effect, and those that are so for one value, which they must have.
void take_known_keys(JsonKeys& keys);

// An error that names the first key that nobody took, unless its path is in `ignored_keys`.
void expect_no_more(const JsonKeys& keys, std::span<const std::string> ignored_keys);

}  // namespace caravan
