// The two propagation macros of this project.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function when `expr`, an absl::Status, is not OK.
#define TURBOKV_RETURN_IF_ERROR(expr)                                 \
  do {                                                                \
    if (absl::Status turbokv_status = (expr); !turbokv_status.ok()) { \
      return turbokv_status;                                          \
    }                                                                 \
  } while (false)

#define TURBOKV_STATUS_CONCAT_INNER(a, b) a##b
#define TURBOKV_STATUS_CONCAT(a, b) TURBOKV_STATUS_CONCAT_INNER(a, b)

// Declares or assigns `lhs` from `expr`, an absl::StatusOr<T>; returns its status when it has none.
#define TURBOKV_ASSIGN_OR_RETURN(lhs, expr) \
  TURBOKV_ASSIGN_OR_RETURN_INNER(TURBOKV_STATUS_CONCAT(turbokv_or_, __LINE__), lhs, expr)
#define TURBOKV_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                   \
  if (!tmp.ok()) return std::move(tmp).status();       \
  lhs = *std::move(tmp)
