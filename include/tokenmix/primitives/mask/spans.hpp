// SPDX-License-Identifier: Apache-2.0
/// @file The keys that a block of queries visits: sorted, disjoint spans, joined from a mask's runs.
#pragma once

#include <tokenmix/primitives/mask/mask.hpp>

#include <cstddef>
#include <iterator>
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI {

/// An input range of the spans of a mask for one block of queries, computed as it is walked, without allocation.
///
/// The spans are sorted, disjoint, not empty and lie in [first, last); no span is `none`, and two that touch differ in coverage.
template <class M>
class span_range {
 public:
  constexpr span_range(M mask, const query_block& block, index_t first, index_t last)
      : mask_(std::forward<M>(mask)), block_(block), first_(first), last_(last) {}

  class iterator {
   public:
    using value_type = span;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;

    constexpr explicit iterator(const span_range& owner) : owner_(&owner), ahead_(owner.run(owner.first_)) {
      advance();
    }

    constexpr const span& operator*() const { return current_; }
    constexpr const span* operator->() const { return &current_; }
    constexpr iterator& operator++() {
      advance();
      return *this;
    }
    constexpr void operator++(int) { advance(); }
    friend constexpr bool operator==(const iterator& it, std::default_sentinel_t) {
      return it.current_.visible == coverage::none;
    }

   private:
    // Takes the next run that is not none and every run of the same coverage that follows; ahead_ is the run after these.
    constexpr void advance() {
      while (ahead_.visible == coverage::none && ahead_.begin < owner_->last_) ahead_ = owner_->run(ahead_.end);
      current_ = ahead_;
      while (ahead_.visible == current_.visible && ahead_.begin < owner_->last_) {
        current_.end = ahead_.end;
        ahead_ = owner_->run(ahead_.end);
      }
    }

    const span_range* owner_;
    span current_;
    span ahead_;
  };

  constexpr iterator begin() const { return iterator(*this); }
  constexpr std::default_sentinel_t end() const { return {}; }

 private:
  // The run at a key, held inside the range; past the range an empty one of none.
  constexpr span run(index_t key) const {
    if (key >= last_) return {last_, last_, coverage::none};
    span found = mask_run(mask_, block_, key);
    found.end = std::min(found.end, last_);
    return found;
  }

  M mask_;
  query_block block_;
  index_t first_;
  index_t last_;
};

/// The keys in [first, last) that some query of the block may see:
///
///     for (const span& s : spans(mask, block))  ... keys [s.begin, s.end) with coverage s.visible, some or all
///
/// Keys between spans are invisible to every query of the block. A mask given as an lvalue is referred to, a temporary is kept.
/// A lambda that is no mask type has one span of `some` over everything.
template <mask_callable M>
constexpr span_range<M> spans(M&& mask, const query_block& block, index_t first, index_t last) {
  return {std::forward<M>(mask), block, std::max(first, index_t{0}), std::min(last, block.keys)};
}
template <mask_callable M>
constexpr span_range<M> spans(M&& mask, const query_block& block) {
  return {std::forward<M>(mask), block, 0, block.keys};
}

}  // namespace tokenmix::inline TOKENMIX_ABI
