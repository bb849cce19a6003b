# Makes the target quintil::torch (headers, libtorch_cpu, libc10) from CMAKE_PREFIX_PATH or Torch_DIR, and sets
# quintil_torch_root and quintil_torch_version. Used by the build and by the installed package.
# Not find_package(Torch): for a torch with CUDA that stops without a CUDA toolkit, and nothing here needs one.
if(NOT TARGET quintil::torch)
  # <prefix>/../../include: share/cmake inside the Python package; <prefix>/include: an unpacked LibTorch.
  find_path(QUINTIL_TORCH_INCLUDE_DIR ATen/core/Tensor.h HINTS ${Torch_DIR}/../../../include ${quintil_torch_hints}
            PATH_SUFFIXES ../../include)
  if(NOT QUINTIL_TORCH_INCLUDE_DIR)
    message(FATAL_ERROR "quintil: expected CMAKE_PREFIX_PATH to lead to torch, got '${CMAKE_PREFIX_PATH}' "
                        "(python -c 'import torch; print(torch.utils.cmake_prefix_path)' prints the right value)")
  endif()
  get_filename_component(quintil_torch_include "${QUINTIL_TORCH_INCLUDE_DIR}" ABSOLUTE)
  get_filename_component(quintil_torch_root "${quintil_torch_include}" DIRECTORY)
  find_library(QUINTIL_TORCH_CPU_LIBRARY torch_cpu HINTS ${quintil_torch_root}/lib REQUIRED NO_DEFAULT_PATH)
  find_library(QUINTIL_C10_LIBRARY c10 HINTS ${quintil_torch_root}/lib REQUIRED NO_DEFAULT_PATH)

  set(quintil_torch_version "")
  foreach(part MAJOR MINOR PATCH)
    file(STRINGS "${quintil_torch_include}/torch/headeronly/version.h" line REGEX "#define TORCH_VERSION_${part} ")
    string(REGEX MATCH "[0-9]+$" number "${line}")
    string(APPEND quintil_torch_version ".${number}")
  endforeach()
  string(SUBSTRING "${quintil_torch_version}" 1 -1 quintil_torch_version)

  add_library(quintil::torch INTERFACE IMPORTED)
  target_include_directories(quintil::torch SYSTEM INTERFACE
    "${quintil_torch_include}" "${quintil_torch_include}/torch/csrc/api/include")
  target_link_libraries(quintil::torch INTERFACE "${QUINTIL_TORCH_CPU_LIBRARY}" "${QUINTIL_C10_LIBRARY}")
endif()
