#include "config/suggest.h"

#include <gtest/gtest.h>

namespace outrider::config {
namespace {

TEST(EditDistance, CountsEditsAndSwaps) {
    EXPECT_EQ(edit_distance("", ""), 0u);
    EXPECT_EQ(edit_distance("", "abc"), 3u);
    EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
    EXPECT_EQ(edit_distance("lsiten", "listen"), 1u);
    EXPECT_EQ(edit_distance("listen", "listen"), 0u);
    EXPECT_GT(edit_distance(std::string(65, 'a'), "a"), 1000u);
}

TEST(DidYouMean, NamesOnlyWhatIsNear) {
    const std::vector<std::string> known{"listen", "name", "idle_timeout", "max_headers"};
    EXPECT_EQ(did_you_mean("lisen", known), " (did you mean 'listen'?)");
    EXPECT_EQ(did_you_mean("Listen", known), " (did you mean 'listen'?)");
    EXPECT_EQ(did_you_mean("idle-timeout", known), " (did you mean 'idle_timeout'?)");
    EXPECT_EQ(did_you_mean("idletimeout", known), " (did you mean 'idle_timeout'?)");
    EXPECT_EQ(did_you_mean("idle", known), " (did you mean 'idle_timeout'?)");
    EXPECT_EQ(did_you_mean("retry", known), "");
    EXPECT_EQ(did_you_mean("x", known), "");
    EXPECT_EQ(did_you_mean("name", {}), "");
}

TEST(DidYouMean, MeasuresOnlySoMany) {
    std::vector<std::string> known(kComparedMax - 1, "zzzzzz");
    known.insert(known.begin(), 1000, "of another length");  // not even looked at
    known.emplace_back("listen");
    EXPECT_EQ(did_you_mean("lisetn", known), " (did you mean 'listen'?)");
    known.insert(known.begin(), "zzzzzz");
    EXPECT_EQ(did_you_mean("lisetn", known), "");
}

}  // namespace
}  // namespace outrider::config
