// What a run leaves in its folder, read so that two runs can be compared bit for bit: without the
// clock, the place of the run and the files' own structures.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "checkpoint/manifest.h"

namespace caravan {

// The lines of metrics.jsonl by step, without what depends on the clock. Where a step was made
// several times, since the run was killed and went on from before it, all lines must be alike: a
// test failure otherwise. Lines that a kill cut off are left out.
std::map<int64_t, std::string> step_lines(const std::string& run);

// How many lines of steps stand there now; 0 without the file.
size_t num_step_lines(const std::string& run);

// A checkpoint's tensors, with the checksums of all shards, and the state of training.
Manifest manifest_of(const std::string& run, int64_t step);

// Makes `to` a run that has nothing but the checkpoint of one step of `from`.
void copy_checkpoint(const std::string& from, const std::string& to, int64_t step);

}  // namespace caravan
