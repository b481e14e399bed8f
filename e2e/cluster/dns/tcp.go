package dns

import (
	"encoding/binary"
	"io"
	"net"
	"time"
)

const streamIdle = 10 * time.Second

// serveStream answers queries that come length-prefixed over TCP, until the
// peer is done, idle, or sends something that is no query.
func (r *resolver) serveStream(conn net.Conn) {
	defer conn.Close()
	for {
		if conn.SetDeadline(time.Now().Add(streamIdle)) != nil {
			return
		}
		var size uint16
		if binary.Read(conn, binary.BigEndian, &size) != nil {
			return
		}
		query := make([]byte, size)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer, ok := r.answer(query)
		if !ok || binary.Write(conn, binary.BigEndian, uint16(len(answer))) != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}
