// What the one line about a lost rank says: who, where, since when, and what the others wait for.
#pragma once

#include <span>
#include <string>

#include "launch/judge.h"
#include "launch/local_peers.h"
#include "runtime/program.h"

namespace caravan {

struct VerdictContext {
  const Judge& judge;
  std::span<const RankPlace> places;  // by rank
  std::span<const Program> programs;  // the same on all ranks
};

std::string verdict_text(const Verdict& verdict, const VerdictContext& context);

// A process of this machine that ended without a word.
std::string death_text(int rank, const VerdictContext& context);

}  // namespace caravan
