# ocsp_selftest.tcl - checks the test tools themselves (ocsp_der.tcl, ocsp_responder.tcl, ../../utils/ocsp-pki.tcl), with
# `openssl ocsp` and `openssl verify` as the judges:   tclsh tests/support/ocsp_selftest.tcl
#
# SPDX-License-Identifier: BSD-3-Clause
