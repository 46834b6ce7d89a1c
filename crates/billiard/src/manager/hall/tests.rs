use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use super::*;
use crate::conn::frame::Head;

fn client(hall: &Hall) -> (UnixStream, Seat) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, hall.adopt(theirs.into()).unwrap())
}

fn soon() -> Deadline {
    Deadline::from_seconds(Some(30.0))
}

fn frame(message: &[u8]) -> Vec<u8> {
    [Head::of(message.len()).as_bytes(), message].concat()
}

/// Answers everybody who is ready with the question's bytes, once.
fn echo(hall: &Hall) -> Vec<Seat> {
    let mut ready = Vec::new();
    assert_eq!(hall.wait(&mut ready, soon(), None).unwrap(), Woken::Ready);
    let mut gone = Vec::new();
    for seat in ready {
        loop {
            match hall.look(seat) {
                Ok(Look::Nothing) => break,
                Ok(Look::Question) => {
                    let answer = frame(&hall.question(seat, <[u8]>::to_vec).unwrap());
                    if hall.answer(seat, &mut [Piece::of(&answer)]).is_err() {
                        gone.push(seat);
                    }
                }
                Err(_) => {
                    gone.push(seat);
                    break;
                }
            }
        }
    }
    gone
}

fn asked(hall: &Hall, client: &mut UnixStream, question: &[u8]) {
    client.write_all(&frame(question)).unwrap();
    let mut answer = vec![0; question.len() + 4];
    while !has_heard(client) {
        echo(hall);
    }
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[4..], question);
}

fn has_heard(client: &UnixStream) -> bool {
    use rustix::net::{RecvFlags, recv};
    recv(client, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok()
}

#[expect(clippy::disallowed_methods, reason = "these threads end with the test")]
fn spawned<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(body)
}

#[test]
fn a_question_in_pieces_is_answered_when_it_is_whole_and_others_before() {
    let hall = Hall::new().unwrap();
    let (mut slow, _) = client(&hall);
    let (mut quick, _) = client(&hall);
    let question = frame(b"slow question");
    for at in 0..question.len() - 1 {
        slow.write_all(&question[at..=at]).unwrap();
        asked(&hall, &mut quick, b"quick question");
    }
    slow.write_all(&question[question.len() - 1..]).unwrap();
    assert!(echo(&hall).is_empty());
    let mut answer = [0; 17];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(answer, question.as_slice());
}

#[test]
fn who_does_not_listen_keeps_its_answers_waiting_and_nobody_else() {
    let hall = Hall::new().unwrap();
    let (mut deaf, seat) = client(&hall);
    let (mut quick, _) = client(&hall);
    let large = vec![b'x'; 4 << 20];
    let sent = large.clone();
    let mut half = deaf.try_clone().unwrap();
    let writer = spawned(move || half.write_all(&frame(&sent)).unwrap());
    while !hall.lock().lines[&seat.number()].is_behind() {
        assert!(echo(&hall).is_empty());
    }
    writer.join().unwrap();
    // It is not even asked for more while it does not take what there is.
    deaf.write_all(&frame(b"more")).unwrap();
    for _ in 0..10 {
        asked(&hall, &mut quick, b"quick question");
    }
    let reader = spawned(move || {
        let mut answer = vec![0; 4 + (4 << 20) + 8];
        deaf.read_exact(&mut answer).unwrap();
        (deaf, answer)
    });
    while !reader.is_finished() {
        let mut ready = Vec::new();
        hall.wait(&mut ready, Deadline::from_seconds(Some(0.01)), None).unwrap();
        for seat in ready {
            while hall.look(seat).unwrap() == Look::Question {
                let answer = frame(&hall.question(seat, <[u8]>::to_vec).unwrap());
                hall.answer(seat, &mut [Piece::of(&answer)]).unwrap();
            }
        }
    }
    let (_deaf, answer) = reader.join().unwrap();
    assert_eq!(answer[4..4 + large.len()], large[..]);
    assert_eq!(answer[4 + large.len()..], frame(b"more"));
}

#[test]
fn an_answer_tells_whether_more_has_been_asked_already() {
    let hall = Hall::new().unwrap();
    let (mut eager, seat) = client(&hall);
    eager.write_all(&[frame(b"one"), frame(b"two")].concat()).unwrap();
    for is_ahead in [true, false] {
        assert_eq!(hall.look(seat).unwrap(), Look::Question);
        assert_eq!(hall.answer(seat, &mut [Piece::of(b"yes")]).unwrap(), is_ahead);
    }
    assert_eq!(hall.look(seat).unwrap(), Look::Nothing);
}

#[test]
fn who_hangs_up_or_talks_nonsense_loses_its_seat() {
    for said in [b"".as_slice(), b"\0\0", b"\0\0\0\x08half", b"\xff\xff\xff\xfe", b"GET / HTTP/1.1\r\n\r\n"] {
        let hall = Hall::new().unwrap();
        let (mut other, _) = client(&hall);
        let (mut bad, seat) = client(&hall);
        bad.write_all(said).unwrap();
        bad.shutdown(std::net::Shutdown::Write).unwrap();
        while hall.len() == 2 {
            echo(&hall);
        }
        assert!(hall.leave(seat).is_none());
        asked(&hall, &mut other, b"still here");
    }
}

#[test]
fn a_length_that_is_a_lie_costs_no_memory() {
    let hall = Hall::new().unwrap();
    let (mut liar, seat) = client(&hall);
    liar.write_all(b"\xff\xff\xff\xff\x00\x00\x7f\xff\xff\xff\xff\xff and little else").unwrap();
    assert!(echo(&hall).is_empty());
    assert!(hall.lock().lines[&seat.number()].holds() < 4 << 20);
}

#[test]
fn who_leaves_takes_its_question_along() {
    let hall = Hall::new().unwrap();
    let (mut one, seat) = client(&hall);
    one.write_all(&frame(b"something long")).unwrap();
    let mut ready = Vec::new();
    hall.wait(&mut ready, soon(), None).unwrap();
    assert_eq!(ready, [seat]);
    assert_eq!(hall.look(seat).unwrap(), Look::Question);
    let mut line = hall.leave(seat).unwrap();
    assert_eq!(line.hear(soon(), None).unwrap(), super::super::Heard::Message);
    assert_eq!(line.message(), b"something long");
    assert!(hall.is_empty());
}

#[test]
fn the_bell_ends_a_wait() {
    let hall = Hall::new().unwrap();
    hall.ring();
    let mut ready = Vec::new();
    assert_eq!(hall.wait(&mut ready, soon(), None).unwrap(), Woken::Ready);
    assert!(ready.is_empty());
}
