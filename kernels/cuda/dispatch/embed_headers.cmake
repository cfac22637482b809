# Writes device headers into a C++ source, as strings.
#   cmake -DROOT=<source root> -DFILES=a,b,... -DOUTPUT=<file.cc> -P embed_headers.cmake
# FILES, relative to ROOT, and all that they include keep that name; <cstdint> is
# nvrtc_cstdint.cuh.
cmake_minimum_required(VERSION 3.25)

string(REPLACE "," ";" files "${FILES}")
# Compilers need not take longer string literals than 65536 characters.
set(piece_bytes 16000)

# Sets `out` to what `file` includes in quotes; anything but device code is an error.
function(find_includes file out)
  set(include "^[ \t]*#[ \t]*include[ \t]+[\"<]([^\">]+)[\">].*")
  file(STRINGS "${ROOT}/${file}" lines REGEX "${include}")
  set(found "")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "${include}" "\\1" name "${line}")
    if(name MATCHES "^kernels/cuda/.*\\.cuh$" OR name STREQUAL "kernels/format/codec_id.h")
      list(APPEND found "${name}")
    elseif(NOT name STREQUAL "cstdint")
      message(FATAL_ERROR "${file} includes ${name}, which the run-time compiler does not have")
    endif()
  endforeach()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

# Appends `file` under the name `path` to `source`.
function(append_header path file)
  file(READ "${ROOT}/${file}" text)
  string(FIND "${text}" ")turbokv\"" end_of_literal)
  if(NOT end_of_literal EQUAL -1)
    message(FATAL_ERROR "${file} contains what ends a string literal here: )turbokv\"")
  endif()
  string(APPEND source "    {\"${path}\",\n")
  string(LENGTH "${text}" text_bytes)
  set(begin 0)
  while(begin LESS text_bytes)
    string(SUBSTRING "${text}" ${begin} ${piece_bytes} piece)
    string(APPEND source "     R\"turbokv(${piece})turbokv\"\n")
    math(EXPR begin "${begin} + ${piece_bytes}")
  endwhile()
  string(APPEND source "    },\n")
  set(source "${source}" PARENT_SCOPE)
endfunction()

set(headers "")
while(files)
  list(POP_FRONT files file)
  if(NOT file IN_LIST headers)
    list(APPEND headers "${file}")
    find_includes("${file}" includes)
    list(APPEND files ${includes})
  endif()
endwhile()
list(SORT headers)

set(source "#include \"kernels/cuda/dispatch/embedded_headers.h\"\n\n")
string(APPEND source "namespace turbokv::cuda {\nnamespace {\n\n")
string(APPEND source "constexpr EmbeddedHeader kHeaders[] = {\n")
append_header("cstdint" "kernels/cuda/dispatch/nvrtc_cstdint.cuh")
foreach(header IN LISTS headers)
  append_header("${header}" "${header}")
endforeach()
string(APPEND source "};\n\n}  // namespace\n\n")
string(APPEND source
       "absl::Span<const EmbeddedHeader> EmbeddedHeaders() { return kHeaders; }\n\n"
       "}  // namespace turbokv::cuda\n")
file(WRITE "${OUTPUT}" "${source}")
