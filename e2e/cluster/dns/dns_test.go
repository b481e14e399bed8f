package dns

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

func fixture(t *testing.T) *resolver {
	t.Helper()
	services := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	slices := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	service := func(name string, ips ...string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       corev1.ServiceSpec{ClusterIP: ips[0], ClusterIPs: ips},
		}
	}
	no, host := false, "db-0"
	for _, object := range []any{service("web", "10.98.130.7", "fd00::7"), service("db", corev1.ClusterIPNone)} {
		if err := services.Add(object); err != nil {
			t.Fatal(err)
		}
	}
	err := slices.Add(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db-x", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.98.0.5"}, Hostname: &host},
			{Addresses: []string{"10.98.0.6"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &resolver{services: corelisters.NewServiceLister(services), slices: discoverylisters.NewEndpointSliceLister(slices)}
}

func query(t *testing.T, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 77, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	packet, err := message.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func TestAnswers(t *testing.T) {
	r := fixture(t)
	cases := []struct {
		name  string
		kind  dnsmessage.Type
		code  dnsmessage.RCode
		first string
	}{
		{"web.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.98.130.7"},
		{"WEB.shop.SVC.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.98.130.7"},
		{"web.shop.svc.cluster.local.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, ""},
		{"db.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.98.0.5"},
		{"db-0.db.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.98.0.5"},
		{"db-1.db.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"x.web.shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"web.other.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"shop.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"example.com.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
	}
	for _, c := range cases {
		packet, ok := r.answer(query(t, c.name, c.kind))
		if !ok {
			t.Fatalf("%s: no answer", c.name)
		}
		var message dnsmessage.Message
		if err := message.Unpack(packet); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if message.ID != 77 || !message.Response || message.RCode != c.code {
			t.Errorf("%s: header %+v, want code %v", c.name, message.Header, c.code)
		}
		want := 0
		if c.first != "" {
			want = 1
		}
		if len(message.Answers) != want {
			t.Errorf("%s: %d answers, want %d", c.name, len(message.Answers), want)
			continue
		}
		if want == 1 {
			got := netip.AddrFrom4(message.Answers[0].Body.(*dnsmessage.AResource).A).String()
			if got != c.first {
				t.Errorf("%s: %s, want %s", c.name, got, c.first)
			}
		}
	}
}

func TestWhatIsNoQueryGetsNoAnswer(t *testing.T) {
	r := fixture(t)
	answered, _ := r.answer(query(t, "web.shop.svc.cluster.local.", dnsmessage.TypeA))
	for _, packet := range [][]byte{nil, {1, 2, 3}, bytes.Repeat([]byte{0xff}, 600), answered} {
		if _, ok := r.answer(packet); ok {
			t.Errorf("%x was answered", packet)
		}
	}
}

func TestAStreamCarriesSeveralQueries(t *testing.T) {
	client, server := net.Pipe()
	go fixture(t).serveStream(server)
	packet := query(t, "web.shop.svc.cluster.local.", dnsmessage.TypeA)
	for range 2 {
		if _, err := client.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)); err != nil {
			t.Fatal(err)
		}
		var size uint16
		if err := binary.Read(client, binary.BigEndian, &size); err != nil {
			t.Fatal(err)
		}
		var message dnsmessage.Message
		answer := make([]byte, size)
		if _, err := io.ReadFull(client, answer); err != nil || message.Unpack(answer) != nil || len(message.Answers) != 1 {
			t.Fatalf("answer %x: %v", answer, err)
		}
	}
	client.Close()
}
