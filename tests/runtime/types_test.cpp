// Names of types, placements and bytes, as logs and errors show them.
#include "runtime/types.h"

#include <gtest/gtest.h>

#include "runtime/error.h"

namespace caravan {
namespace {

TEST(Types, NamesReadBack) {
  for (const DType dtype : kDTypes) EXPECT_EQ(parse_dtype(name(dtype)), dtype);
  EXPECT_THROW(parse_dtype("f31"), Error);
  EXPECT_EQ(size_bytes(DType::bf16), 2);
  EXPECT_EQ(size_bytes(DType::i32), 4);
}

TEST(Types, Shapes) {
  EXPECT_EQ(to_string(Shape{8, 16}), "[8,16]");
  EXPECT_EQ(to_string(Shape{}), "[]");
  EXPECT_EQ(num_elements({}), 1);
  EXPECT_EQ(num_elements({3, 0, 5}), 0);
}

TEST(Types, Placements) {
  Placement placement;
  EXPECT_EQ(to_string(placement), "");
  placement = placement.with(Axis::dp, shard(0)).with(Axis::tp, kPartial);
  EXPECT_EQ(to_string(placement), "S(0)@dp P@tp");
  EXPECT_EQ(placement[Axis::ep], kReplicate);
}

TEST(Types, Bytes) {
  EXPECT_EQ(format_bytes(12), "12 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(int64_t{3} << 20), "3.0 MiB");
  EXPECT_EQ(format_bytes(int64_t{5} << 29), "2.50 GiB");
}

TEST(Errors, CarryTheirExitCode) {
  EXPECT_EQ(config_error("x").code(), ExitCode::config);
  EXPECT_EQ(data_error("x").code(), ExitCode::data);
  EXPECT_EQ(checkpoint_error("x").code(), ExitCode::checkpoint);
  EXPECT_NO_THROW(check(true, "%d", 1));
  try {
    check(false, "%d of %s", 3, "four");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::internal);
    EXPECT_STREQ(error.what(), "3 of four");
  }
}

}  // namespace
}  // namespace caravan
