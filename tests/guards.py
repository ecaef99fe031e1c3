"""The guards of the package: for each fault one line that keeps it out, and the test that fails without that line.

`tests/campaign.py --only guards` takes each out of a copy of the source and expects the test to fail. `row` counts the
faults that minifcn has to survive (the words "row N" stand where each is tested); 0 is for those that were found later.
An edit is `(file, old, new)`; `old` has to be in the file once. Where two guards stand behind each other, both go.
"""

from typing import NamedTuple


class Guard(NamedTuple):
    row: int
    test: str
    edits: tuple[tuple[str, str, str], ...]
    seconds: int = 300  # after which a test without its guard hangs, and that is what the guard is against


def guard(row: int, test: str, *edits: tuple[str, str, str], seconds: int = 300) -> Guard:
    return Guard(row, f"tests/{test}", edits, seconds)


CHECKPOINT, FOLDER, RUN = "formats/checkpoint.py", "training/run_folder.py", "training/run_state.py"
CKPT, RUNS, TRAINING = "formats/test_checkpoint.py::", "training/test_run_folder.py::", "training/test_training.py::"
TORCH, NPZ, INTEROP = (f"formats/test_weights_{name}.py::" for name in ("torch", "npz", "interop"))
VOC, FILES, FETCH = "data/test_voc.py::", "data/test_files.py::", "data/tools/test_fetch.py::"
COMMANDS, TENSOR = "cli/test_commands.py::", "course/test_tensor.py::"
RANKS = "training/test_ranks.py::"

GUARDS = [
    # checkpoints and resume
    guard(
        1,
        CKPT + "test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_we_go_on",
        (CHECKPOINT, "                        os.fsync(file.fileno())\n", "                        pass\n"),
    ),
    guard(
        1, RUNS + "test_the_step_and_the_best_are_one_commit", (CHECKPOINT, "else [copy, path]", "else [path, copy]")
    ),
    guard(
        2,
        CKPT + "test_a_full_disk_leaves_the_old_file",
        (CHECKPOINT, "                    each.unlink()", "                    pass"),
    ),
    guard(
        3,
        RUNS + "test_what_a_killed_process_left_unfinished_is_ignored_and_removed",
        (FOLDER, "if UNFINISHED.fullmatch(entry.name) and entry", "if False and entry"),
    ),
    guard(
        4,
        CKPT + "test_every_truncation_is_refused",
        (CHECKPOINT, "if found != expected:", "if False:"),
        ("formats/safetensors.py", "if begin != at or stop > size:", "if begin != at:"),
        ("formats/safetensors.py", "    if at != size:", "    if False:"),
    ),
    guard(5, CKPT + "test_the_damaged_tensor_is_named", (CHECKPOINT, "if found != expected:", "if False:")),
    guard(
        6,
        RUNS + "test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so",
        (FOLDER, "            skipped.append(str(error))\n            continue", "            raise"),
    ),
    guard(
        7,
        TRAINING + "test_a_resumed_run_is_bit_for_bit_the_one_that_was_not_stopped",
        (RUN, '        self.optimizer.load_state_dict(part(checkpoint.tensors, "momentum."))', "        pass"),
    ),
    guard(
        8,
        TRAINING + "test_another_machine_is_named_with_both_values",
        (RUN, 'self.say(f"warning: {difference}: the run goes on, but not bit for bit the same")', "pass"),
    ),
    guard(
        9,
        TRAINING + "test_other_classes_are_refused_with_both_lists",
        ("training/resume.py", "if record.classes != tuple(classes):", "if False:"),
    ),
    guard(
        10,
        RUNS + "test_a_newer_format_is_refused_with_its_version",
        (CHECKPOINT, "if version > FORMAT_VERSION:", "if False:"),
    ),
    guard(
        11,
        RUNS + "test_a_second_process_is_refused_and_a_killed_one_is_succeeded",
        (FOLDER, "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
        seconds=30,
    ),
    guard(
        12,
        RUNS + "test_a_full_disk_is_known_at_once",
        (
            FOLDER,
            '                replace_file(probe, [b"Can this folder be written?"])\n                probe.unlink()',
            "",
        ),
    ),
    guard(
        13,
        TRAINING + "test_a_signal_finishes_the_step_saves_and_says_how_to_go_on",
        (
            "training/signals.py",
            "for number in [getattr(signal, name) for name in names if hasattr(signal, name)]:",
            "for number in ():",
        ),
    ),
    # hostile weight files
    guard(
        14,
        TORCH + "test_row_14_a_shell_is_not_started",
        ("formats/opcodes.py", "if not any(text in known for known in", "if False and any(text in known for known in"),
    ),
    guard(
        15,
        TORCH + "test_row_15_a_memo_bomb",
        (
            "formats/opcodes.py",
            '        self.memo[self.cursor.integer(size, "box")] = value',
            '        box = self.cursor.integer(size, "box")\n'
            "        self.memo = dict.fromkeys(range(min(box, 10**6))) | {box: value}",
        ),
    ),
    guard(16, TORCH + "test_row_16_a_million_words", ("formats/opcodes.py", "if self.budget < 0:", "if False:")),
    guard(
        16,
        TORCH + "test_row_16_words_that_lie_or_do_not_fit",
        ("formats/opcodes.py", "            if key in target:", "            if False:"),
    ),
    guard(
        17,
        TORCH + "test_row_17_a_view_that_leaves_its_storage",
        ("formats/torch_tensors.py", "if last >= storage.numel:", "if False:"),
    ),
    guard(
        18,
        TORCH + "test_row_18_a_compressed_record",
        ("formats/torch_zip.py", "if entry.method != STORED:", "if False:"),
    ),
    guard(
        18,
        NPZ + "test_row_18_a_wrong_checksum",
        ("formats/archive.py", "if zlib.crc32(content) != entry.crc:", "if False:"),
    ),
    guard(
        18,
        NPZ + "test_row_18_a_bomb_is_refused_before_it_goes_off",
        ("formats/archive.py", "if unfolded > most:", "if False:"),
    ),
    guard(
        18,
        NPZ + "test_row_18_names_that_lead_elsewhere",
        ("formats/archive.py", ' or {"", ".", ".."} & set(name.split("/")):', ":"),
    ),
    guard(
        18,
        NPZ + "test_row_18_an_entry_twice",
        ("formats/archive.py", "if entry.name in entries:", "if False:"),
        ("formats/limits.py", "if name in self.arrays:", "if False:"),
    ),
    guard(
        19,
        NPZ + "test_row_19_a_header_of_many_elements",
        ("formats/npz.py", "if nbytes_of(path, name, shape, dtype) != cursor.left:", "if False:"),
    ),
    guard(
        20,
        "formats/test_weights_safetensors.py::test_a_header_that_lies_is_refused",
        ("formats/safetensors.py", "if begin != at or stop > size:", "if stop > size:"),
    ),
    guard(
        21,
        "formats/test_weights_caffe.py::test_every_truncation_is_refused_or_leaves_whole_layers",
        ("formats/limits.py", "if not 0 <= count <= self.left:", "if count < 0:"),
    ),
    guard(
        21,
        "formats/test_weights_caffe.py::test_a_hostile_caffemodel_is_refused",
        ("formats/protobuf.py", "            if number >= 2**64:\n                break\n", ""),
    ),
    guard(
        22,
        INTEROP + "test_links_are_refused_unopened",
        ("formats/h5.py", "if not isinstance(link, h5py.HardLink):", "if False:"),
    ),
    guard(
        23,
        CKPT + "test_numbers_that_are_not_finite_are_refused",
        ("formats/limits.py", 'if array.dtype.kind == "f" and not allow_nonfinite and', "if False and"),
    ),
    guard(
        24,
        CKPT + "test_any_layout_and_byte_order_comes_back_exactly",
        (CHECKPOINT, 'np.asarray(array, dtype=little, order="C")', 'np.asarray(array, order="C")'),
    ),
    # hostile or broken data
    guard(
        25,
        VOC + "test_the_first_bad_line_of_a_list_is_refused_by_number",
        ("data/listed.py", "if ids and not ID.fullmatch(line):", "if False:"),
    ),
    guard(
        26,
        VOC + "test_a_missing_file_is_named_and_counted_at_once",
        ("data/listed.py", "                bad.append(str(error))", "                pass"),
    ),
    guard(
        26,
        VOC + "test_a_mask_of_another_size_is_refused",
        ("data/listed.py", "    if size == image:", "    if True:"),
    ),
    guard(
        27,
        FILES + "test_sixteen_bits_keep_their_high_byte",
        ("data/files.py", 'if picture.mode.startswith("I;16"):', "if False:"),
    ),
    guard(27, FILES + "test_an_empty_file_is_refused", ("data/files.py", "if found.st_size == 0:", "if False:")),
    guard(
        28,
        FILES + "test_too_many_megapixels_are_refused_before_decoding",
        (
            "data/files.py",
            '        raise DataError(_too_large(path, f"{width}x{height} pixels", most, cure))',
            "        pass",
        ),
    ),
    guard(
        29,
        FILES + "test_ids_that_are_no_class_are_refused_with_their_values",
        (
            "data/files.py",
            "    strange = [value for value in range(classes, VOID) if counts[value]]",
            "    strange: list[int] = []",
        ),
    ),
    guard(
        30,
        TRAINING + "test_images_without_a_label_teach_nothing_and_harm_nothing",
        ("ops/loss.py", "z = xp_of(x).maximum(counts.sum(), 1).astype(x.dtype)", "z = counts.sum().astype(x.dtype)"),
    ),
    guard(
        31,
        "ops/test_oracles.py::test_ceil_mode_sizes_are_caffes",
        ("geometry.py", "if (out - 1) * self.stride >= size + self.padding:", "if False:"),
    ),
    guard(
        31,
        "models/test_fcn.py::test_any_size_comes_out_at_its_own_size",
        ("models/fcn.py", 'yield Step("score", "crop", last.at, ("score", "image"))', "pass"),
    ),
    guard(32, FETCH + "test_harm_is_refused", ("data/tools/unpack.py", "    if not harmless:", "    if False:")),
    guard(
        32,
        FETCH + "test_harm_is_refused",
        (
            "data/tools/unpack.py",
            "if not links.isdisjoint(name.parents) or (name in links and not is_link):",
            "if False:",
        ),
    ),
    guard(
        32,
        FETCH + "test_a_million_members_are_too_many",
        ("data/tools/unpack.py", "if members > max_members:", "if False:"),
        seconds=30,
    ),
    guard(
        33,
        FETCH + "test_a_wrong_hash_leaves_nothing",
        ("data/tools/fetch.py", "if found.hexdigest() != source.digest:", "if False:"),
    ),
    guard(
        33,
        FETCH + "test_a_redirect_to_anything_but_https_is_refused",
        ("data/tools/fetch.py", "_require_https(newurl, self.trusted)", "pass"),
    ),
    guard(
        33,
        FETCH + "test_a_web_page_is_no_archive",
        ("data/tools/fetch.py", 'if kind in ("text/html", "application/xhtml+xml"):', "if False:"),
        ("data/tools/fetch.py", 'if not had and first.lstrip()[:1] == b"<":', "if False:"),
    ),
    # numbers
    guard(
        34,
        TRAINING + "test_a_loss_that_is_nan_stops_at_that_step",
        ("training/step.py", "if not math.isfinite(values[-1]):", "if False:"),
    ),
    guard(
        34,
        TRAINING + "test_parameters_that_are_nan_are_never_saved",
        (RUN, "broken = not_finite(tensors)", "broken = []"),
    ),
    guard(
        35,
        "ops/test_oracles.py::test_huge_scores_are_exact_and_overflow_nothing",
        ("ops/loss.py", "below = x[part] - xp.where(xp.isfinite(top), top, math.nan)", "below = x[part]"),
    ),
    guard(
        36,
        "course/test_optim.py::test_nothing_drifts_in_ten_thousand_steps_of_nothing",
        ("optim.py", "shrink=rate * self.weight_decay * decay_mult", "shrink=self.weight_decay * decay_mult"),
    ),
    guard(
        37,
        "course/test_nn.py::test_a_float32_step_makes_no_float64_and_carries_only_the_mask",
        ("nn.py", "kept.astype(x.dtype) / x.dtype.type(1 - self.p)", "kept / np.float64(1 - self.p)"),
    ),
    guard(
        38,
        "data/test_data_formats.py::test_ids_come_in_the_order_of_their_names_whatever_the_folder_says",
        ("data/listed.py", "return tuple(sorted(part.files))", "return tuple(part.files)"),
        ("data/listed.py", "for name in sorted(os.listdir(folder)):", "for name in os.listdir(folder):"),
    ),
    guard(
        39,
        "course/test_nn.py::test_a_layer_no_network_can_have_is_refused_when_it_is_built",
        ("nn.py", "        if not whole(value, least=least):", "        if False:"),
    ),
    guard(
        39,
        "ops/test_ops.py::test_what_does_not_fit_is_refused_in_one_sentence",
        ("ops/checks.py", '    if x.dtype.kind != "f":', "    if False:"),
    ),
    guard(
        40,
        TENSOR + "test_a_second_backward_says_what_to_do",
        ("tensor.py", "    if node.edges is None:", "    if False:"),
    ),
    guard(
        40,
        TENSOR + "test_a_parameter_changed_after_the_forward_pass_is_refused",
        ("tensor.py", "            if parent.version != version:", "            if False:"),
    ),
    # machine and process
    guard(
        41,
        "course/test_backend.py::test_a_gpu_that_cannot_be_used",
        ("training/device.py", "        if len(installed) > 1:", "        if False:"),
    ),
    guard(
        42,
        "cli/test_out_of_memory.py::test_training_ends_in_one_line_and_keeps_its_checkpoint",
        ("cli/command.py", "    if isinstance(error, MemoryError):\n        return out_of_memory(error), 2\n", ""),
    ),
    guard(
        43,
        RANKS + "test_a_rank_that_died_is_not_waited_for",
        ("training/ranks.py", 'if gone := self._in_state("", "Z", "X"):', 'if gone := "":'),
    ),
    guard(
        43,
        RANKS + "test_ranks_whose_parameters_differ_abort",
        ("training/ranks.py", "        if odd:", "        if False:"),
    ),
    guard(
        43,
        RANKS + "test_too_few_cards_and_two_kinds_of_devices_are_refused_on_every_rank",
        ("training/ranks.py", "            if not free:", "            if False:"),
    ),
    guard(
        43,
        RANKS + "test_what_shared_memory_is_enough",
        ("training/ranks.py", "    if total < ROOM * ranks and ranks == size:", "    if False:"),
    ),
    guard(
        44,
        COMMANDS + "test_a_config_is_hostile_until_it_is_checked",
        ("training/options.py", "if not fits or (isinstance(value, bool)", "if False and (isinstance(value, bool)"),
    ),
    guard(
        44,
        "formats/test_strict_json.py",
        ("formats/strict_json.py", "        if depth > MOST_DEPTH:", "        if False:"),
    ),
    guard(
        44, "house/test_floors.py::test_the_package_keeps", ("errors.py", "import math\n", "import math\n\neval('1')\n")
    ),
    # found later
    guard(
        0,
        RUNS + "test_nothing_is_written_where_a_file_is_none",
        (FOLDER, "                check_kinds(self.path)\n", ""),
    ),
    guard(0, RUNS + "test_no_folder_of_a_run_is_a_link", (FOLDER, "                check_kinds(self.path)\n", "")),
    guard(
        0,
        COMMANDS + "test_links_in_a_run_folder_lead_nowhere",
        ("cli/evaluate.py", "        check_kinds(run_folder)", "        pass"),
    ),
    guard(
        0,
        COMMANDS + "test_links_in_a_run_folder_lead_nowhere",
        ("cli/predict.py", "        check_kinds(out.parent)", "        pass"),
    ),
    guard(
        0,
        RUNS + "test_the_temporary_file_is_made_new",
        (CHECKPOINT, 'open(temporary[each], "xb")', 'open(temporary[each], "wb")'),
    ),
    guard(
        0,
        RUNS + "test_a_temporary_file_follows_no_link_and_takes_no_name",
        (CHECKPOINT, 'f"{each.name}.{secrets.token_hex(8)}.tmp"', 'f"{each.name}.tmp"'),
    ),
    guard(
        0,
        RUNS + "test_no_file_of_another_is_removed",
        (FOLDER, "if UNFINISHED.fullmatch(entry.name) and entry", 'if entry.name.endswith(".tmp") and entry'),
    ),
    guard(
        0,
        COMMANDS + "test_a_run_does_not_begin_in_a_folder_of_others",
        ("cli/train.py", "    check_unused(path)", "    pass"),
    ),
    guard(
        0,
        COMMANDS + "test_an_interruption_before_the_first_checkpoint_is_no_dead_end",
        ("cli/train.py", "    if not ranks.once(lambda: bool(checkpoints(path))):", "    if False:"),
    ),
    guard(
        0,
        RUNS + "test_an_unreadable_checkpoint_stops_and_nothing_is_taken_in_its_place",
        (CHECKPOINT, 'raise UsageError(f"{path}: cannot be read', 'raise FormatError(f"{path}: cannot be read'),
    ),
    guard(
        0,
        RUNS + "test_a_record_that_is_cut_takes_no_other_along",
        ("training/runlog.py", "                file.truncate(end)", "                pass"),
    ),
    guard(
        0,
        RUNS + "test_a_record_cut_by_a_kill_does_not_swallow_the_next",
        ("training/runlog.py", '            line = b"\\n" + line', "            pass"),
    ),
    guard(
        0,
        TRAINING + "test_a_best_that_could_not_be_saved_is_not_the_one_to_beat",
        (RUN, "            p.best = beaten", "            pass"),
    ),
    guard(
        0,
        "kernels/test_fused.py::test_a_label_that_is_no_class_makes_the_loss_nan",
        ("kernels/fused.py", "const bool known = 0 <= own && own < classes;", "const bool known = true;"),
    ),
]
