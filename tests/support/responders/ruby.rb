# ruby.rb - OCSP responder for tests/unit/ocsp-interop.tcl: Ruby's OpenSSL::OCSP behind WEBrick.
#
# usage: ruby ruby.rb DIR PORT (README.md in this folder describes both)
#
# SPDX-License-Identifier: BSD-3-Clause

require 'openssl'
require 'time'
require 'webrick'

DIR = ARGV[0]

def read(name)
  File.binread(File.join(DIR, name))
end

def certificate(name)
  OpenSSL::X509::Certificate.new(read(name))
end

# [status, reason, revocation time] by index.txt; unknown for a serial number that is not in it.
def status_of(serial)
  read('index.txt').each_line do |line|
    flag, _, revocation, number = line.split("\t")
    next unless number.to_i(16) == serial.to_i
    return [OpenSSL::OCSP::V_CERTSTATUS_GOOD, 0, nil] unless flag == 'R'

    time, reason = revocation.split(',')
    hold = reason == 'holdInstruction'
    return [OpenSSL::OCSP::V_CERTSTATUS_REVOKED,
            hold ? OpenSSL::OCSP::REVOKED_STATUS_CERTIFICATEHOLD : OpenSSL::OCSP::REVOKED_STATUS_UNSPECIFIED,
            Time.strptime("20#{time} UTC", '%Y%m%d%H%M%SZ %Z')]
  end
  [OpenSSL::OCSP::V_CERTSTATUS_UNKNOWN, 0, nil]
end

def answer(der)
  request = OpenSSL::OCSP::Request.new(der)
  basic = OpenSSL::OCSP::BasicResponse.new
  basic.copy_nonce(request)
  now = Time.now
  request.certid.each do |id|
    status, reason, revoked_at = status_of(id.serial)
    basic.add_status(id, status, reason, revoked_at, now, now + 4 * 3600, nil)
  end
  if File.exist?(File.join(DIR, 'responder.crt'))
    signer = certificate('responder.crt')
    basic.sign(signer, OpenSSL::PKey.read(read('responder.key')), [], 0, OpenSSL::Digest.new('SHA256'))
  else
    signer = certificate('ca.crt')
    basic.sign(signer, OpenSSL::PKey.read(read('ca.key')), [], OpenSSL::OCSP::NOCERTS, OpenSSL::Digest.new('SHA256'))
  end
  OpenSSL::OCSP::Response.create(OpenSSL::OCSP::RESPONSE_STATUS_SUCCESSFUL, basic).to_der
end

server = WEBrick::HTTPServer.new(BindAddress: '127.0.0.1', Port: ARGV[1].to_i, AccessLog: [])
server.mount_proc '/' do |request, response|
  response['Content-Type'] = 'application/ocsp-response'
  response.body = answer(request.body)
end
Thread.new do
  $stdin.read
  exit!(0)
end
$stdout.puts "http://127.0.0.1:#{server.listeners[0].addr[1]}/"
$stdout.flush
server.start
