/* Java.java - OCSP responder for tests/unit/ocsp-interop.tcl: Bouncy Castle behind com.sun.net.httpserver.
 *
 * usage: java -cp bcprov.jar:bcpkix.jar:bcutil.jar Java.java DIR PORT (README.md in this folder describes both)
 *
 * Bouncy Castle repeats the CertID of the request byte for byte.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileReader;
import java.io.IOException;
import java.math.BigInteger;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.PrivateKey;
import java.text.SimpleDateFormat;
import java.util.Date;
import java.util.TimeZone;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.x509.CRLReason;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.ocsp.BasicOCSPRespBuilder;
import org.bouncycastle.cert.ocsp.CertificateStatus;
import org.bouncycastle.cert.ocsp.OCSPReq;
import org.bouncycastle.cert.ocsp.OCSPRespBuilder;
import org.bouncycastle.cert.ocsp.Req;
import org.bouncycastle.cert.ocsp.RespID;
import org.bouncycastle.cert.ocsp.RevokedStatus;
import org.bouncycastle.cert.ocsp.UnknownStatus;
import org.bouncycastle.openssl.PEMKeyPair;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;

public class Java {
    static Path dir;

    static Object pem(String name) throws IOException {
        try (PEMParser parser = new PEMParser(new FileReader(dir.resolve(name).toFile()))) {
            return parser.readObject();
        }
    }

    static PrivateKey key(String name) throws IOException {
        Object object = pem(name);
        JcaPEMKeyConverter converter = new JcaPEMKeyConverter();
        if (object instanceof PEMKeyPair) return converter.getKeyPair((PEMKeyPair)object).getPrivate();
        return converter.getPrivateKey((PrivateKeyInfo)object);
    }

    /* The status of a serial number by index.txt. */
    static CertificateStatus statusOf(BigInteger serial) throws Exception {
        SimpleDateFormat form = new SimpleDateFormat("yyMMddHHmmss'Z'");
        form.setTimeZone(TimeZone.getTimeZone("UTC"));
        for (String line : Files.readAllLines(dir.resolve("index.txt"))) {
            String[] fields = line.split("\t");
            if (!new BigInteger(fields[3], 16).equals(serial)) continue;
            if (!fields[0].equals("R")) return CertificateStatus.GOOD;
            String[] parts = fields[2].split(",");
            boolean hold = parts.length > 1 && parts[1].equals("holdInstruction");
            return new RevokedStatus(form.parse(parts[0]), hold ? CRLReason.certificateHold : CRLReason.unspecified);
        }
        return new UnknownStatus();
    }

    static byte[] answer(byte[] der) throws Exception {
        boolean authorized = Files.exists(dir.resolve("responder.crt"));
        X509CertificateHolder signer = (X509CertificateHolder)pem(authorized ? "responder.crt" : "ca.crt");
        PrivateKey key = key(authorized ? "responder.key" : "ca.key");
        BasicOCSPRespBuilder builder = new BasicOCSPRespBuilder(new RespID(signer.getSubject()));
        Date now = new Date(), next = new Date(now.getTime() + 4 * 3600 * 1000L);
        for (Req request : new OCSPReq(der).getRequestList())
            builder.addResponse(request.getCertID(), statusOf(request.getCertID().getSerialNumber()), now, next, null);
        String algorithm = key.getAlgorithm().equals("RSA") ? "SHA256withRSA" : "SHA256withECDSA";
        X509CertificateHolder[] sent = authorized ? new X509CertificateHolder[] {signer} : null;
        return new OCSPRespBuilder()
            .build(OCSPRespBuilder.SUCCESSFUL,
                   builder.build(new JcaContentSignerBuilder(algorithm).build(key), sent, now))
            .getEncoded();
    }

    static void handle(HttpExchange exchange) throws IOException {
        try {
            byte[] body = answer(exchange.getRequestBody().readAllBytes());
            exchange.getResponseHeaders().set("Content-Type", "application/ocsp-response");
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
        } catch (Exception e) {
            e.printStackTrace();
            exchange.sendResponseHeaders(500, -1);
        }
        exchange.close();
    }

    public static void main(String[] args) throws Exception {
        dir = Path.of(args[0]);
        InetSocketAddress address = new InetSocketAddress(InetAddress.getByName("127.0.0.1"), Integer.parseInt(args[1]));
        HttpServer server = HttpServer.create(address, 0);
        server.createContext("/", Java::handle);
        server.start();
        System.out.printf("http://127.0.0.1:%d/%n", server.getAddress().getPort());
        while (System.in.read() >= 0) continue;
        System.exit(0);
    }
}
