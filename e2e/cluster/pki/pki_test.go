package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func made(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if err := Main(arguments(dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func arguments(dir string) []string {
	return []string{"--dir", dir, "--server", "https://10.98.0.1:6443", "--node", "n", "--hosts", "localhost,10.98.0.1"}
}

func authorityOf(t *testing.T, dir, name string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", name)
	}
	return pool
}

func TestServersAreTrustedUnderTheirAddressesByTheirOwnAuthorityOnly(t *testing.T) {
	dir := made(t)
	for file, authority := range map[string]string{"apiserver": "ca.crt", "kubelet-server": "ca.crt", "etcd": "etcd-ca.crt"} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key"))
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"localhost", "10.98.0.1"} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: authorityOf(t, dir, authority), DNSName: host}); err != nil {
				t.Errorf("%s as %s: %v", file, host, err)
			}
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: authorityOf(t, dir, "front-proxy-ca.crt")}); err == nil {
			t.Errorf("%s is trusted by another authority", file)
		}
	}
}

func TestOnlyTheAdminIsMaster(t *testing.T) {
	dir := made(t)
	files, err := filepath.Glob(filepath.Join(dir, "*.kubeconfig"))
	if err != nil || len(files) != 6 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		config, err := clientcmd.BuildConfigFromFlags("", file)
		if err != nil {
			t.Fatal(err)
		}
		if config.Host != "https://10.98.0.1:6443" {
			t.Errorf("%s: %s", file, config.Host)
		}
		pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
		if err != nil {
			t.Fatal(err)
		}
		master := strings.Contains(strings.Join(pair.Leaf.Subject.Organization, ","), "system:masters")
		if master != (filepath.Base(file) == "admin.kubeconfig") {
			t.Errorf("%s: groups %v", file, pair.Leaf.Subject.Organization)
		}
	}
}

func TestKeysAreReadableByTheirOwnerOnly(t *testing.T) {
	dir := made(t)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		public := strings.HasSuffix(entry.Name(), ".crt") || strings.HasSuffix(entry.Name(), ".pub")
		if !public && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", entry.Name(), info.Mode())
		}
	}
}

func TestKeysInUseAreNeverReplaced(t *testing.T) {
	dir := made(t)
	before, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Main(arguments(dir)); err == nil {
		t.Error("a second run went through")
	}
	after, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil || string(after) != string(before) {
		t.Errorf("the key changed (%v)", err)
	}
}

func TestAllArgumentsAreNeeded(t *testing.T) {
	for skipped := 0; skipped < 8; skipped += 2 {
		all := arguments(filepath.Join(t.TempDir(), "pki"))
		if err := Main(append(all[:skipped:skipped], all[skipped+2:]...)); err == nil {
			t.Errorf("went through without %s", all[skipped])
		}
	}
}
