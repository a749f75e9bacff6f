#pragma once
// What the tests of portable files share: a file in memory, trees with leaves, and a file that is
// put together piece by piece so that each piece can be made wrong under a hash that fits.

#include <array>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "format/portable_file.h"
#include "format/portable_layout.h"
#include "format/portable_writer.h"
#include "support.h"

namespace stepstone::test {

class MemorySink final : public PortableSink {
 public:
  Result<void> append(std::span<const std::byte> bytes) override {
    if (bytes_.size() + bytes.size() > size_bytes_max) return fail(ErrorCode::kNoSpace, "full");
    bytes_ += as_string(bytes);
    return {};
  }
  const std::string& bytes() const { return bytes_; }

  std::size_t size_bytes_max = std::size_t{1} << 30;

 private:
  std::string bytes_;
};

struct SampleLeaf {
  PortableLeafInfo info;
  std::string bytes;
};
struct SampleItem {
  PortableItemInfo info;
  std::vector<SampleLeaf> leaves;  // In the order of their encoded paths.
};
struct SampleStep {
  PortableStepInfo info;
  std::vector<SampleItem> items;
};

enum class Hashes : std::uint8_t { kUnknown, kKnown };

// The file of `steps`; empty, and a failed expectation, if it cannot be written.
std::string written(const std::vector<SampleStep>& steps, PortableWriteOptions options,
                    Hashes hashes);
Result<void> write_to(PortableSink& sink, const std::vector<SampleStep>& steps,
                      PortableWriteOptions options, Hashes hashes);

// One item `state`, {"w": float32 (3,), "n": 7}, at step 1000: for the specification and the golden
// files.
std::vector<SampleStep> sample_portable_steps();
// Two steps of two items with every kind of leaf, of which the second shares chunks with the first.
std::vector<SampleStep> sample_shared_steps();
// Steps with trees of any shape, the later ones like the first with some changes.
std::vector<SampleStep> random_steps(Random& random);

// Opens a file as a mapping or through a callback.
Result<PortableFile> open_file(const std::string& bytes, bool is_mapped);
// Reads all that a file says it has, in every way that there is; the first error.
Result<void> read_everything(const PortableFile& file);

// Step 5 with the item `state`, {"a": float32 (16,), "b": float32 (16,)}, from parts that a test
// may change before build() puts them together, with hashes that fit.
struct PortableParts {
  using Pages = std::map<portable::Tree, portable::IndexPage>;

  PortableParts();
  std::string build() const;

  std::string header;
  std::string data;  // Stands at byte 64.
  LeafRecord a;
  LeafRecord b;
  ItemRecord item;
  StepRecord step;
  std::string padding;  // Before the footer, beyond what aligns it.
  std::string tail;     // Behind the footer.
  // Called with each encoded record, `which` from 0 to 3: a, b, item, step.
  std::function<void(int which, std::string* record)> change_record;
  std::function<void(portable::Tree, portable::IndexPage*)> change_page;
  std::function<void(portable::Tree, std::string* page)> change_page_bytes;
  std::function<void(portable::Footer*)> change_footer;
  std::function<void(std::string* footer)> change_footer_bytes;
};

// The record without its hash is handed to `change`, and closed again.
void reseal(std::string* record, const std::function<void(std::string*)>& change);

}  // namespace stepstone::test
