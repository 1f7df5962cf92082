#include <cmath>
#include <limits>

#include "runtime/error.h"
#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

struct Geometry {
  int64_t num_sequences;
  int64_t sequence_len;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
};

struct Tensors {
  Tensor q, k, v, document_start;
};

// A document begins wherever a multiple of `document_len` stands; 0: one document.
Tensor document_starts(const Geometry& g, int64_t document_len) {
  std::vector<int32_t> starts;
  for (int64_t t = 0; t < g.num_sequences * g.sequence_len; ++t) {
    const int64_t at = t % g.sequence_len;
    starts.push_back(document_len == 0 ? 0
                                       : static_cast<int32_t>(at / document_len * document_len));
  }
  return integers(starts);
}

Tensors make(const Geometry& g, int64_t document_len, double std = 1.0) {
  const int64_t num_tokens = g.num_sequences * g.sequence_len;
  return {normal({num_tokens, g.num_heads * g.head_dim}, 1, std),
          normal({num_tokens, g.num_kv_heads * g.head_dim}, 2, std),
          normal({num_tokens, g.num_kv_heads * g.head_dim}, 3), document_starts(g, document_len)};
}

void check_tensors(const Geometry& g, int64_t group, const Tensors& in, double std = 1.0) {
  const int64_t num_tokens = in.q.shape[0];
  const auto forward = check_op(Attention{g.head_dim, g.sequence_len, group},
                                {{in.q, in.k, in.v, in.document_start},
                                 {in.q.shape, {num_tokens, g.num_heads}},
                                 {},
                                 1e-5 * std});
  const OpCase backward{
      {in.q, in.k, in.v, in.document_start, forward[0], forward[1], normal(in.q.shape, 4)},
      {in.q.shape, in.k.shape, in.v.shape},
      {},
      5e-6 * std,
      2 * std};  // what cancels in sums is of that size
  check_op(AttentionGrad{g.head_dim, g.sequence_len, group}, backward);
}

void check_attention(const Geometry& g, int64_t document_len, double std = 1.0) {
  SCOPED_TRACE(testing::Message() << g.num_sequences << " x " << g.sequence_len << ", heads "
                                  << g.num_heads << "/" << g.num_kv_heads << " of " << g.head_dim
                                  << ", documents of " << document_len);
  check_tensors(g, g.num_heads / g.num_kv_heads, make(g, document_len, std), std);
}

TEST(Attention, HeadWidthsAndGroups) {
  check_attention({2, 33, 2, 2, 8}, 0);
  check_attention({1, 70, 4, 2, 20}, 0);
  check_attention({1, 65, 6, 2, 64}, 0);
  check_attention({1, 40, 8, 1, 128}, 0);
  check_attention({1, 37, 20, 1, 16}, 0);
}

// Of queries a rank has some heads, of keys and values all: one group, parts of two, part of one.
TEST(Attention, QueryHeadsAmongMoreKeyHeads) {
  const auto check = [](int64_t num_heads, int64_t first_head, int64_t num_kv_heads,
                        int64_t group) {
    SCOPED_TRACE(testing::Message() << num_heads << " heads from " << first_head);
    const Geometry g{2, 70, num_heads, num_kv_heads, 16};
    Tensors in = make(g, 32);
    in.q.offset = {0, first_head * g.head_dim};
    check_tensors(g, group, in);
  };
  for (const int64_t first : {0, 2, 4}) check(2, first, 3, 2);
  for (const int64_t first : {0, 3}) check(3, first, 3, 2);
  for (const int64_t first : {0, 2, 6}) check(2, first, 2, 4);
}

TEST(Attention, HeadsThatDoNotFit) {
  Tensors in = make({1, 10, 2, 2, 8}, 0);
  in.q.offset = {0, 48};  // its key heads are not here
  const OpCase c{{in.q, in.k, in.v, in.document_start}, {in.q.shape, {10, 2}}};
  EXPECT_THROW(run_kernel(Attention{8, 10, 2}, c), Error);
}

TEST(Attention, SingleTokens) {
  check_attention({1, 1, 2, 1, 16}, 0);
  check_attention({5, 1, 2, 2, 8}, 0);
}

TEST(Attention, SeveralChunksOfKeys) { check_attention({1, 600, 2, 1, 16}, 0); }

TEST(Attention, PackedDocuments) {
  check_attention({2, 64, 2, 1, 16}, 1);
  check_attention({2, 130, 4, 2, 8}, 7);
  check_attention({1, 150, 2, 2, 16}, 64);
  check_attention({1, 600, 2, 1, 8}, 290);
}

TEST(Attention, LargeScores) { check_attention({1, 80, 2, 1, 32}, 0, 12.0); }

// What lies in another document or later must not matter, not even as infinity.
TEST(Attention, UnseenKeysDoNotMatter) {
  const Geometry g{1, 96, 2, 1, 16};
  Tensors in = make(g, 32);
  const auto run = [&] {
    return run_kernel(Attention{g.head_dim, g.sequence_len, g.num_heads / g.num_kv_heads},
                      {{in.q, in.k, in.v, in.document_start}, {in.q.shape, {96, 2}}});
  };
  const auto before = run();
  for (int64_t i = 0; i < 32 * 16; ++i) in.k.at(i) = in.v.at(i) = 1e30f;
  for (int64_t i = 64 * 16; i < 96 * 16; ++i) in.k.at(i) = in.v.at(i) = -1e30f;
  const auto after = run();
  for (int64_t i = 32 * 32; i < 64 * 32; ++i) ASSERT_EQ(before[0].at(i), after[0].at(i)) << i;
}

// Sums over other documents would overflow.
TEST(Attention, HugeUnseenValuesDoNotMatter) {
  const Geometry g{1, 96, 2, 1, 16};
  Tensors in = make(g, 32);
  for (int64_t i = 0; i < 32 * 16; ++i) in.v.at(i) = 3e38f;
  const auto made = run_kernel(Attention{g.head_dim, g.sequence_len, g.num_heads / g.num_kv_heads},
                               {{in.q, in.k, in.v, in.document_start}, {in.q.shape, {96, 2}}});
  for (int64_t i = 32 * 32; i < made[0].size(); ++i) ASSERT_TRUE(std::isfinite(made[0].at(i))) << i;
}

// Nothing that a token sees has a weight: no number, rather than what it does not see.
TEST(Attention, InfinitelyUnlikelyKeys) {
  Tensors in = make({1, 40, 1, 1, 1}, 0);
  for (int64_t i = 0; i < 40; ++i) in.q.at(i) = 1.0f;
  for (int64_t i = 0; i < 2; ++i) in.k.at(i) = -std::numeric_limits<float>::infinity();
  const auto made =
      run_kernel(Attention{1, 40}, {{in.q, in.k, in.v, in.document_start}, {in.q.shape, {40, 1}}});
  for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(made[0].at(i)), i < 2) << i;
}

TEST(Attention, TokensThatAreNoSequences) {
  const Geometry g{1, 10, 2, 1, 8};
  const Tensors in = make(g, 0);
  const OpCase c{{in.q, in.k, in.v, in.document_start}, {in.q.shape, {10, 2}}};
  EXPECT_THROW(run_kernel(Attention{8, 4, 2}, c), Error);
  EXPECT_THROW(run_kernel(Attention{6, 10, 2}, c), Error);
}

}  // namespace
}  // namespace caravan
